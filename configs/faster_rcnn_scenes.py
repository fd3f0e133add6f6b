"""Faster R-CNN on scenes of real digits, upright and side by side.

Regions are read by RoIAlign from a single map with cells of 4 pixels; the variant `pool` reads them by RoIPool, as the
paper does, and `fpn` from a pyramid.

Paper: Ren, He, Girshick & Sun, Faster R-CNN, 2015 (arXiv:1506.01497).
Command: python train.py --config=configs/faster_rcnn_scenes.py --workdir=runs/faster_rcnn_scenes
Result: VOC07 mAP 0.954 on the 1,000 held-out scenes, COCO AP 0.795 (seed 9801).
Time: 13 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 3000
PROPOSING = dict(
    channels=64,
    sizes=((11.0, 14.0, 18.0, 23.0),),
    ratios=(1.2, 1.8),
    anchors=64,
    before=400,
    after=64,
    test_before=400,
    test_after=64,
    smallest=4.0,
)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, the others have no bars."""
    config = experiment(
        "detection.faster_rcnn",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            features=dict(backbone="resnet", depth=18, width=16, stem="small", strides=(2, 2, 1)),
            proposing=PROPOSING,
            classifying=dict(pooling="align", canonical=14.0, hidden=256, dropout=0.0, count=32),
            ema=0.998,
            detection=dict(score_threshold=0.01, iou_threshold=0.4),
            # The paper starts from an ImageNet classifier and takes fifty times as many steps.
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-3,
                warmup=100,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="digit_scenes/plain_64",
            max_boxes=8,
            batch=32,
            eval_batch=128,
            # No flip: most mirrored digits are not digits.
            transforms=(
                dict(op="random_scale", scale=(0.75, 1.33), aspect=(0.8, 1.25), value=0.5),
                dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.94), "ap": (">=", 0.7)},
    )
    smoke = {"steps": 4, "recipe.features.width": 4, "recipe.classifying.hidden": 16, "recipe.proposing.channels": 8}
    smoke |= {"log_every": 1, "data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    # Cells of 2, 4 and 8 pixels, and of 16 for proposals.
    fpn = {"recipe.features.fpn": True, "recipe.features.strides": (2, 2, 2), "recipe.features.channels": 48}
    fpn |= {"recipe.proposing.sizes": ((11.0,), (15.0,), (20.0,), (26.0,)), "recipe.classifying.canonical": 28.0}
    fpn |= {"recipe.proposing.before": 200, "recipe.proposing.test_before": 200}
    return variant(config, name, smoke=smoke, fpn=fpn, pool={"recipe.classifying.pooling": "pool"})
