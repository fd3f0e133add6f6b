"""Images that mean nothing, one for each class, of which the small classifier of digits is sure; pixel by pixel.

The variant "cppn" evolves small networks that draw the images.

Paper: Nguyen, Yosinski & Clune, Deep Neural Networks are Easily Fooled, 2015 (arXiv:1412.1897).
Command: python train.py --config=configs/fooling_digits.py --workdir=runs/fooling_digits
Result: mean confidence 0.990 to 1.000 (seeds 41, 8311, 9101 and 9102 of both configs); "cppn" 0.997 and 0.999
  (41 and 9101).
Time: 15 CPU seconds, "cppn" 40, after configs/classifier_digits.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "attacks.fooling",
        recipe=dict(encoding="direct", offspring=1000),
        borrow=dict(classifier="runs/classifier_digits/classifier"),
        data=dict(name="digits", batch=8, eval_batch=256),
        steps=200,  # generations
        log_every=10,
        expect={"fooling_confidence": (">=", 0.99)},
    )
    smoke = {"steps": 4, "recipe.offspring": 8, "log_every": 1, "data.eval_batch": 16, "data.eval_split": "test[:32]"}
    return variant(config, name, smoke=smoke, cppn={"recipe.encoding": "cppn"})
