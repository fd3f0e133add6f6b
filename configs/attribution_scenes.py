"""Maps of what a digit classifier looks at, on scenes of two digits, each of which is asked for.

The classifier is that of configs/located_digits.py, which has seen single digits, and other digits and photographs.
`--config.borrow.classifier=RUN/classifier --config.data.name=...` explains another one, on labelled images too.

Paper: Selvaraju et al., Grad-CAM, 2017 (arXiv:1610.02391); measures of Petsiuk et al., RISE, 2018 (arXiv:1806.07421).
Command: python train.py --config=configs/attribution_scenes.py --workdir=runs/attribution_scenes
Result: not measured.
Time: 3 minutes on two CPU cores, after configs/located_digits.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "interpret.attribution",
        recipe=dict(points=10, samples=16, window=16),
        borrow=dict(classifier="runs/located_digits/classifier"),
        data=dict(name="digit_scenes/pairs_64", max_boxes=2, batch=8, eval_batch=32, eval_split="test[:96]"),
        steps=0,
        expect={
            "pointing/gradcam": (">=", 0.95),
            "randomised_correlation/gradcam": ("<=", 0.3),
            "deletion_gain/gradcam": (">=", 0),
            "insertion_gain/gradcam": (">=", 0),
        },
    )
    smoke = {"data.name": "digit_scenes/smoke", "data.max_boxes": 5, "data.eval_batch": 16}
    smoke |= {"data.eval_split": "test[:32]", "recipe.methods": ("gradcam", "guided"), "recipe.points": 2}
    return variant(config, name, smoke=smoke)
