"""Maps of what a digit classifier looks at, on scenes of two digits, each of which is asked for.

The classifier is that of configs/located_digits.py, which has seen single digits, and other digits and photographs.
`--config.borrow.classifier=RUN/classifier --config.data.name=...` explains another one, on labelled images too.

Paper: Selvaraju et al., Grad-CAM, 2017 (arXiv:1610.02391); measures of Petsiuk et al., RISE, 2018 (arXiv:1806.07421).
Command: python train.py --config=configs/attribution_scenes.py --workdir=runs/attribution_scenes
Result: on 50 scenes, `data.eval_split=test[:50]`, not yet on the 96 of this config. They are 84 questions, in which
  Grad-CAM points at the asked digit in 0.988 with the game's tolerance and in 0.905 without, occlusion in 0.905 and
  0.762, integrated gradients in 0.833 and 0.833, guided backpropagation in 0.821 and 0.821, SmoothGrad in 0.821 and
  0.786, saliency in 0.774 and 0.750, a deconvnet in 0.119 and 0.060. Deletion 0.069 and insertion 0.694 by Grad-CAM;
  0.280 and 0.286 in random order, 0.352 and 0.262 by edges. A deconvnet's insertion, 0.268, is no better. Rank
  correlations with maps of random weights are 0.04 to 0.24, but 0.32 of guided backpropagation and 0.39 of integrated
  gradients (seed 0; the classifier is that of seed 11). These are known of the three methods, as their docstrings in
  cvjax/interpret/saliency.py say; correlations of maps with signs have been added since and are not measured.
Time: 18 minutes for the 50 scenes on two CPU cores that other programs shared; after configs/located_digits.py.
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
    smoke = {"data.eval_batch": 16, "data.eval_split": "test[:32]"}
    smoke |= {"recipe.methods": ("gradcam", "guided"), "recipe.points": 2}
    return variant(config, name, smoke=smoke)
