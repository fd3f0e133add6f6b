"""YOLOv2 on PASCAL VOC 2007, as in the paper but from scratch and without VOC 2012.

The paper starts from an ImageNet classifier and trains on VOC 2007 and 2012. `--config.data.name=voc/2012` trains on
VOC 2012 instead.

Paper: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242), sections 2 and 3.
Command: python train.py --config=configs/yolov2_voc.py --workdir=runs/yolov2_voc
Result: not measured; its smoke steps are tested on digits. The paper has 76.8 at 416 pixels.
Time: 160 epochs of 78 steps; not measured.
"""

from cvjax.config import experiment, variant

CLASSES = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa", "train", "tvmonitor"),
)
EPOCH = 5011 // 64


def _transforms(size: int, train: bool) -> tuple:
    """Fits images into a square; for training, also scales, mirrors and recolours them at random."""
    square = dict(op="letterbox", size=(size, size))
    jitter = (
        dict(op="random_scale", scale=(0.7, 1.5)),
        dict(op="flip"),
        dict(op="color_jitter", brightness=0.2, contrast=0.3, saturation=0.5, hue=0.1),
    )
    return (square, *jitter) if train else (square,)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    drops = {str(epoch * EPOCH): 0.1 for epoch in (60, 90)}
    config = experiment(
        "detection.yolov2",
        precision="bfloat16",
        recipe=dict(
            shape=(416, 416, 3),
            classes=CLASSES,
            sizes=tuple(range(320, 609, 32)),
            ema=0.999,
            detection=dict(flip_test=True),
            optimiser=dict(
                name="sgd",
                learning_rate=1e-3,
                momentum=0.9,
                weight_decay=5e-4,
                warmup=1000,
                schedule=dict(name="piecewise_constant_schedule", boundaries_and_scales=drops),
            ),
        ),
        data=dict(
            name="voc/2007",
            train_split="train+validation",
            max_boxes=64,
            batch=64,
            eval_batch=64,
            workers=8,
            transforms=_transforms(416, train=True),
            eval_transforms=_transforms(416, train=False),
        ),
        steps=160 * EPOCH,
        log_every=EPOCH,
        eval_every=20 * EPOCH,
        figure_every=20 * EPOCH,
        checkpoint_every=20 * EPOCH,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.5)},
    )
    # Digits replace VOC, for which TFDS needs TensorFlow.
    smoke = {"steps": 4, "log_every": 1, "data.batch": 8, "data.eval_batch": 8, "data.workers": 0}
    smoke |= {"data.name": "digit_scenes/smoke", "data.train_split": "train", "recipe.classes": tuple("0123456789")}
    smoke |= {"recipe.shape": (64, 64, 3), "recipe.stages": (1,) * 6, "recipe.width": 2, "recipe.sizes": (32,)}
    smoke |= {"data.transforms": _transforms(64, train=True), "data.eval_transforms": _transforms(64, train=False)}
    return variant(config, name, smoke=smoke)
