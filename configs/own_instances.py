"""Mask R-CNN on a folder of one's own images with masks in COCO's json, as polygons or RLE.

`--config.data.folder=FOLDER --config.recipe.classes=N` name the folder and the number of its classes. `python -m
cvjax.annotations FOLDER --config=configs/own_instances.py` checks the annotations first. The variant `people` learns
COCO's 17 joints of people as well.

Paper: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870).
Command: python train.py --config=configs/own_instances.py --workdir=runs/own_instances
Result: not measured; it depends on the folder.
Time: not measured; 6,000 steps: hours on two CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 6000
PROPOSING = dict(
    channels=96,
    sizes=((16.0,), (32.0,), (64.0,), (112.0,), (176.0,)),
    anchors=128,
    before=500,
    after=200,
    test_before=500,
    test_after=200,
    smallest=4.0,
)


def _transforms(size: int, train: bool) -> tuple:
    """Fits images into a square; for training, also scales, mirrors and recolours them at random."""
    square = dict(op="letterbox", size=(size, size))
    jitter = (
        dict(op="random_scale", scale=(0.7, 1.5), aspect=(0.8, 1.25)),
        dict(op="flip"),  # remove it if left and right matter, as for letters
        dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.05),
    )
    return (square, *jitter) if train else (square,)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.mask_rcnn",
        recipe=dict(
            shape=(256, 256, 3),
            classes=10,
            features=dict(depth=18, width=32, fpn=True, channels=96),
            proposing=PROPOSING,
            classifying=dict(canonical=112.0, hidden=256, count=64),
            branches=dict(mask_channels=(96, 96, 96, 96), keypoint_channels=(128, 128, 128, 128)),
            ema=0.998,
            detection=dict(score_threshold=0.05, iou_threshold=0.5, max_detections=50),
            optimiser=dict(
                name="adamw",
                learning_rate=1e-3,
                weight_decay=1e-3,
                warmup=200,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 200),
            ),
        ),
        data=dict(
            max_boxes=50,
            masks="segmentation",
            batch=8,
            eval_batch=8,
            transforms=_transforms(256, train=True),
            eval_transforms=_transforms(256, train=False),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=500,
        checkpoint_best="mask_ap",
        expect={"mask_ap": (">=", 0)},
    )
    # Drawn people replace one's own images.
    smoke = {"steps": 4, "log_every": 1, "data.name": "drawn_people/smoke", "data.max_boxes": 4, "data.masks": "mask"}
    smoke |= {"recipe.classes": 1, "recipe.shape": (64, 64, 3), "recipe.features.width": 4}
    smoke |= {"recipe.features.channels": 8, "recipe.features.stem": "small", "recipe.features.strides": (2, 2)}
    smoke |= {"recipe.proposing.sizes": ((16.0,), (24.0,), (40.0,)), "recipe.proposing.channels": 8}
    smoke |= {"recipe.classifying.hidden": 16, "recipe.branches.mask_channels": (8,)}
    smoke |= {"data.transforms": _transforms(64, train=True), "data.eval_transforms": _transforms(64, train=False)}
    people = {"recipe.classes": 1, "recipe.keypoints": 17, "data.keypoints": {}}
    return variant(config, name, smoke=smoke, people=people)
