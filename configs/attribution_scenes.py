"""Maps of what a digit classifier looks at, on scenes of two digits, each of which is asked for.

The classifier is that of configs/located_digits.py, which has seen single digits, and other digits and photographs.
`--config.borrow.classifier=RUN/classifier --config.data.name=...` explains another one, on labelled images too.

Paper: Selvaraju et al., Grad-CAM, 2017 (arXiv:1610.02391); measures of Petsiuk et al., RISE, 2018 (arXiv:1806.07421).
Command: python train.py --config=configs/attribution_scenes.py --workdir=runs/attribution_scenes
Result: of 84 questions on 50 scenes, Grad-CAM points at the asked digit in 98.8 % (90.5 % without tolerance), occlusion
  in 90 %, integrated gradients, guided backpropagation and SmoothGrad in 82 to 83 %, saliency in 77 %, a deconvnet in
  12 %. Deletion 0.069 and insertion 0.694 by Grad-CAM; 0.280 and 0.286 in random order, 0.352 and 0.262 by edges. A
  deconvnet's insertion, 0.268, is no better. Rank correlations with maps of random weights are 0.04 to 0.24, but 0.32
  of guided backpropagation and 0.39 of integrated gradients (seed 0, on the classifier of seed 11).
Time: about 10 minutes on two CPU cores, not measured alone; after configs/located_digits.py.
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
            "randomised_correlation/saliency": ("<=", 0.3),
            "deletion_gain/gradcam": (">=", 0.1),
            "deletion_gain/saliency": (">=", 0.05),
            "insertion_gain/gradcam": (">=", 0.2),
            "insertion_gain/saliency": (">=", 0.05),
        },
    )
    smoke = {"data.name": "digit_scenes/smoke", "data.max_boxes": 5, "data.eval_batch": 16}
    smoke |= {"data.eval_split": "test[:32]", "recipe.methods": ("gradcam", "guided"), "recipe.points": 2}
    return variant(config, name, smoke=smoke)
