"""WGAN-GP on real handwritten digits: a critic with a gradient penalty.

Paper: Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (arXiv:1704.00028).
Command: python train.py --config=configs/wgan_gp_digits.py --workdir=runs/wgan_gp_digits
Result: FID 0.787, 0.954 and 0.954 times that of a Gaussian per class, recall 0.86 to 0.87; mean norm of the critic's
  gradient 1.02 (seeds 212, 213 and 214).
Time: 6 minutes on one CPU core for 6,000 steps, each with 5 steps of the critic.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    steps, critic_steps = 6000, 5

    def adam(updates: int):
        # Four times the paper's learning rate, for a run of minutes; decayed to 0, as for its ResNets on CIFAR-10.
        decay = dict(name="linear_schedule", end_value=0.0, transition_steps=updates)
        return dict(name="adam", learning_rate=4e-4, b1=0.0, b2=0.9, schedule=decay)

    config = experiment(
        "generative.gans.wgan",
        recipe=dict(
            shape=(8, 8, 1),
            latent=32,
            width=64,
            kernel=4,
            base=2,
            generator_optimiser=adam(steps),
            discriminator_optimiser=adam(steps * critic_steps),
            training=dict(discriminator_steps=critic_steps),
        ),
        data=dict(name="digits", batch=320, eval_batch=128),
        steps=steps,
        log_every=100,
        eval_every=2000,
        judge="digits",
        figure_every=1000,
        checkpoint_every=2000,
        checkpoint_best="fid_over_control",
        expect={
            "fid_over_control": ("<=", 1.14),
            "gradient_error": ("<=", 0.031),
            "smallest_class": (">=", 0.062),
            "nearest_distance": (">=", 18.0),
        },
    )
    smoke = {"steps": 4, "recipe.width": 8, "data.batch": 40, "log_every": 1, "judge_samples": 32}
    return variant(config, name, smoke=smoke)
