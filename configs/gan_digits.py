"""The first GAN on real handwritten digits; its mode collapse and a cure.

Paper: Goodfellow et al., Generative Adversarial Nets, 2014 (arXiv:1406.2661).
Command: python train.py --config=configs/gan_digits.py --workdir=runs/gan_digits
Result: all ten classes, the smallest 6 % of the samples (4 to 7), FID 2.4 times that of a Gaussian per class (2.1 to
  3.0; seeds 51, 221 to 223 and 1101) and recall 0.77 to 0.82. `collapsed`: one image for all latents, which changes
  during training; FID 43 times the control's and recall 0, although the discriminator's loss is that of guessing (seed
  221).
Time: 2 minutes on one CPU core; 8 for `collapsed`, with ten steps of the generator per step.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; "collapsed" changes one strategy, "cured" none."""
    # Adam replaces the paper's SGD with momentum, and 64 pixels need fewer units.
    adam = dict(name="adam", learning_rate=2e-4, b1=0.5)
    config = experiment(
        "generative.gans.gan",
        recipe=dict(
            shape=(8, 8, 1),
            networks="dense",
            latent=32,
            hidden=(256, 120),
            dropout=0.5,
            training=dict(real_label=0.9),
            generator_optimiser=adam,
            discriminator_optimiser=adam,
        ),
        data=dict(name="digits", batch=64, eval_batch=128),
        steps=12_000,
        log_every=100,
        eval_every=3000,
        judge="digits",
        figure_every=1000,
        checkpoint_every=3000,
        checkpoint_best="smallest_class",
        expect={"fid_over_control": ("<=", 3.33), "smallest_class": (">=", 0.03), "classes_seen": (">=", 10)},
    )
    smoke = {"steps": 4, "recipe.hidden": (24, 24), "data.batch": 16, "log_every": 1, "judge_samples": 32}
    # "G must not be trained too much without updating D" (section 6): here ten steps of G per step of D.
    collapsed = {
        "recipe.training.generator_steps": 10,
        "expect.fid_over_control": (">=", 5.0),
        "expect.smallest_class": ("<=", 0.01),
        "expect.classes_seen": ("<=", 7),
    }
    return variant(config, name, smoke=smoke, collapsed=collapsed, cured={})
