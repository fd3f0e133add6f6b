"""SAGAN on real handwritten digits, of the class that is asked for.

Paper: Zhang, Goodfellow, Metaxas & Odena, Self-Attention Generative Adversarial Networks, 2019 (arXiv:1805.08318).
Command: python train.py --config=configs/sagan_digits.py --workdir=runs/sagan_digits
Result: not measured: the bars are goals.
Time: not measured; 4,000 steps.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.sagan",
        recipe=dict(
            shape=(8, 8, 1),
            classes=10,
            latent=32,
            width=32,
            base=2,
            attention=4,
            measure="digits",
        ),
        data=dict(name="digits", batch=64, eval_batch=128),
        steps=4000,
        log_every=100,
        eval_every=2000,
        figure_every=1000,
        checkpoint_every=2000,
        checkpoint_best="fid_over_control",
        expect={
            "fid_over_control": ("<=", 0.9),
            "class_accuracy": (">=", 0.95),
            "nearest_distance": (">=", 14.0),
            "smallest_class": (">=", 0.05),
        },
    )
    smoke = {"steps": 4, "recipe.width": 8, "data.batch": 16, "log_every": 1}
    return variant(config, name, smoke=smoke)
