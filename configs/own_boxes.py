"""RetinaNet on a folder of one's own images with boxes, in COCO's json, Pascal VOC's xml or YOLO's txt.

`--config.data.folder=FOLDER --config.recipe.classes=N` name the folder and the number of its classes. `python -m
cvjax.annotations FOLDER --config=configs/own_boxes.py` checks the boxes first.

Paper: Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002).
Command: python train.py --config=configs/own_boxes.py --workdir=runs/own_boxes
Result: not measured; it depends on the folder.
Time: 6,000 steps; hours on two CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 6000


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
        "detection.retinanet",
        recipe=dict(
            shape=(256, 256, 3),
            classes=10,
            depth=18,
            width=32,
            channels=96,
            subnet_depth=2,
            ema=0.998,
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
            max_boxes=100,
            batch=16,
            eval_batch=16,
            transforms=_transforms(256, train=True),
            eval_transforms=_transforms(256, train=False),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=500,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0)},
    )
    # Digits replace one's own images.
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.max_boxes": 8}
    smoke |= {"recipe.shape": (64, 64, 3), "recipe.width": 4, "recipe.channels": 8, "recipe.stem": "small"}
    smoke |= {"recipe.strides": (2, 2, 2), "recipe.levels": (3, 4), "recipe.sizes": (11.0, 18.0)}
    smoke |= {"data.transforms": _transforms(64, train=True), "data.eval_transforms": _transforms(64, train=False)}
    return variant(config, name, smoke=smoke)
