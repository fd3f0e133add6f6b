"""Class-conditional SAGAN on CIFAR-10.

Paper: Zhang, Goodfellow, Metaxas & Odena, Self-Attention Generative Adversarial Networks, 2019 (arXiv:1805.08318).
Command: python train.py --config=configs/sagan_cifar10.py --workdir=runs/sagan_cifar10
Result: not measured; its smoke steps are tested on mock data.
Time: 100,000 steps; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.gans.sagan",
        recipe=dict(shape=(32, 32, 3), classes=10, width=64, attention=16),
        data=dict(name="cifar10", batch=256, eval_batch=512),
        steps=100_000,
        log_every=100,
        eval_every=10_000,
        judge="pixels",
        judge_samples=10_000,
        figure_every=2000,
        checkpoint_every=5000,
        checkpoint_best="fid_over_noise",
        expect={"fid_over_noise": ("<=", 0.05)},
    )
    smoke = {
        "steps": 4,
        "recipe.width": 8,
        "data.batch": 16,
        "data.eval_batch": 16,
        "log_every": 1,
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
