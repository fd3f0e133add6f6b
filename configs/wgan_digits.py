"""WGAN on real handwritten digits: a critic with clipped weights.

Paper: Arjovsky, Chintala & Bottou, Wasserstein GAN, 2017 (arXiv:1701.07875).
Command: python train.py --config=configs/wgan_digits.py --workdir=runs/wgan_digits
Result: not measured: the bars are goals.
Time: not measured; 6,000 steps, each 5 of the critic and one of the generator.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    # Four times the paper's rate and five times its bound, for a run of minutes.
    rmsprop = dict(name="rmsprop", learning_rate=2e-4, decay=0.99, eps_in_sqrt=False)
    config = experiment(
        "generative.wgan",
        recipe=dict(
            shape=(8, 8, 1),
            constraint="clipping",
            clip=0.05,
            latent=32,
            width=64,
            kernel=4,
            base=2,
            measure="digits",
            generator_optimiser=rmsprop,
            discriminator_optimiser=rmsprop,
        ),
        data=dict(name="digits", batch=320, eval_batch=128),
        steps=6000,
        log_every=100,
        eval_every=2000,
        figure_every=1000,
        checkpoint_every=2000,
        checkpoint_best="fid_over_control",
        expect={"fid_over_control": ("<=", 2.0), "smallest_class": (">=", 0.03)},
    )
    smoke = {"steps": 4, "recipe.width": 8, "data.batch": 40, "log_every": 1}
    return variant(config, name, smoke=smoke)
