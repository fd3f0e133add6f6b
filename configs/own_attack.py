"""The fast gradient sign method on a classifier of one's own pictures, after configs/own_classes.py.

`--config.data.folder=FOLDER` names the folder that the classifier was trained on; its held-out pictures are attacked.

Paper: Goodfellow, Shlens & Szegedy, Explaining and Harnessing Adversarial Examples, 2015 (arXiv:1412.6572).
Command: python train.py --config=configs/own_attack.py --workdir=runs/own_attack
Result: not measured; it depends on the folder.
Time: 10 seconds on two CPU cores, after configs/own_classes.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=146, shorter=True), dict(op="center_crop", size=128))
    config = experiment(
        "attacks.fgsm",
        recipe=dict(epsilons=(0.01, 0.03)),
        borrow=dict(classifier="runs/own_classes/classifier"),
        data=dict(batch=8, eval_batch=64, transforms=square, eval_transforms=square),
        steps=0,
        expect={"robust_accuracy_0_03": ("<=", 1)},
    )
    # Digits replace one's own pictures.
    small = (dict(op="resize", size=28),)
    smoke = {"data.name": "digit_crops/smoke", "data.eval_batch": 16, "data.eval_split": "test[:32]"}
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
