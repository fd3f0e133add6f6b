"""WGAN-GP on CIFAR-10.

Paper: Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (arXiv:1704.00028).
Command: python train.py --config=configs/wgan_gp_cifar10.py --workdir=runs/wgan_gp_cifar10
Result: not measured; its smoke steps are tested on mock data.
Time: 100,000 steps of the generator and 500,000 of the critic, as in the paper; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    # The paper's learning rate on CIFAR-10: 2e-4, decayed to 0.
    adam = dict(name="adam", learning_rate=2e-4, b1=0.0, b2=0.9)
    schedule = dict(name="linear_schedule", end_value=0.0)
    config = experiment(
        "generative.gans.wgan",
        recipe=dict(
            shape=(32, 32, 3),
            width=128,
            generator_optimiser=dict(**adam, schedule=dict(**schedule, transition_steps=100_000)),
            discriminator_optimiser=dict(**adam, schedule=dict(**schedule, transition_steps=500_000)),
        ),
        data=dict(name="cifar10", batch=320, eval_batch=512),
        steps=100_000,
        log_every=100,
        eval_every=10_000,
        judge="pixels",
        judge_samples=10_000,
        figure_every=2000,
        checkpoint_every=5000,
        checkpoint_best="fid_over_noise",
        expect={"fid_over_noise": ("<=", 0.05), "gradient_error": ("<=", 0.2)},
    )
    smoke = {
        "steps": 4,
        "recipe.width": 8,
        "data.batch": 40,
        "data.eval_batch": 16,
        "log_every": 1,
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
