"""YOLO on PASCAL VOC 2007: the paper's network and schedule, from scratch.

The paper starts from an ImageNet classifier and trains on VOC 2007 and 2012. Here VOC 2007 is used alone, and batch
normalisation replaces pretraining; `--config.recipe.batch_norm=False` gives the paper's network. Fast YOLO is
`--config=configs/yolo_voc.py:fast`.

Paper: Redmon, Divvala, Girshick & Farhadi, You Only Look Once, 2016 (arXiv:1506.02640), section 2.
Command: python train.py --config=configs/yolo_voc.py --workdir=runs/yolo_voc
Result: not measured; its smoke steps are tested on mock data. The paper has 63.4, and 52.7 for Fast YOLO.
Time: 135 epochs of 78 steps; not measured.
"""

from cvjax.config import experiment, variant

EPOCH = 5011 // 64


def _transforms(size: int, train: bool) -> tuple:
    """Resizes images to a square; for training, also scales, moves, mirrors and recolours them at random."""
    square = dict(op="resize", size=(size, size))
    jitter = (
        dict(op="random_scale", scale=(0.8, 1.25)),
        dict(op="flip"),
        dict(op="color_jitter", brightness=0.2, saturation=0.5),
    )
    return (square, *jitter) if train else (square,)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.yolo",
        recipe=dict(
            shape=(448, 448, 3),
            classes=20,
            batch_norm=True,
            ema=0.999,
            optimiser=dict(
                name="sgd",
                learning_rate=1e-2,
                momentum=0.9,
                weight_decay=5e-4,
                warmup=5 * EPOCH,
                clip=10.0,
                schedule=dict(
                    name="piecewise_constant_schedule",
                    boundaries_and_scales={str(75 * EPOCH): 0.1, str(105 * EPOCH): 0.1},
                ),
            ),
        ),
        data=dict(
            name="voc/2007",
            train_split="train+validation",
            max_boxes=64,
            batch=64,
            workers=8,
            transforms=_transforms(448, train=True),
            eval_transforms=_transforms(448, train=False),
        ),
        steps=135 * EPOCH,
        log_every=EPOCH,
        eval_every=15 * EPOCH,
        figure_every=15 * EPOCH,
        checkpoint_every=15 * EPOCH,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.4)},
    )
    # Digits replace VOC, for which TFDS needs TensorFlow.
    smoke = {"data.name": "digit_scenes/smoke", "data.train_split": "train", "recipe.classes": 10}
    smoke |= {"steps": 4, "log_every": 1, "data.batch": 8, "data.eval_batch": 8, "data.workers": 0}
    smoke |= {"recipe.shape": (64, 64, 3), "recipe.width": 0.02}
    smoke |= {"data.transforms": _transforms(64, train=True), "data.eval_transforms": _transforms(64, train=False)}
    return variant(config, name, smoke=smoke, fast={"recipe.layers": "fast", "recipe.bottleneck": 256})
