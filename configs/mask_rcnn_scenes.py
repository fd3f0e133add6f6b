"""Mask R-CNN on scenes of real digits, upright and side by side: a box, a class and a mask for each.

Regions are read by RoIAlign from a pyramid, whose finest cells have 2 pixels; the variant `pool` reads them by RoIPool.

Paper: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870).
Command: python train.py --config=configs/mask_rcnn_scenes.py --workdir=runs/mask_rcnn_scenes
Result: COCO's AP of masks 0.752 on the 1,000 held-out scenes, of boxes 0.783; VOC07 mAP 0.940 (seed 9802).
Time: 15 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 2000
PROPOSING = dict(
    channels=32,
    sizes=((11.0,), (15.0,), (20.0,), (26.0,)),
    ratios=(1.2, 1.8),
    anchors=64,
    before=200,
    after=64,
    test_before=200,
    test_after=64,
    smallest=4.0,
)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, the others have no bars."""
    config = experiment(
        "detection.mask_rcnn",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            features=dict(depth=18, width=16, stem="small", strides=(2, 2, 2), fpn=True, channels=32),
            proposing=PROPOSING,
            classifying=dict(canonical=64.0, hidden=256, count=32),
            branches=dict(mask_channels=(32, 32)),
            ema=0.998,
            detection=dict(score_threshold=0.01, iou_threshold=0.4, max_detections=20),
            # The paper starts from an ImageNet classifier and takes thirty times as many steps.
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
            keep=("instances",),
            batch=32,
            eval_batch=64,
            # No flip: most mirrored digits are not digits. No scaling: scaled masks would differ from scaled images by
            # up to half a pixel, of strokes of two.
            transforms=(
                dict(op="random_shift", pixels=8),
                dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="mask_ap",
        expect={"mask_ap": (">=", 0.65), "map_voc07": (">=", 0.93)},
    )
    smoke = {"steps": 4, "recipe.features.width": 4, "recipe.classifying.hidden": 16, "recipe.proposing.channels": 8}
    smoke |= {"recipe.features.channels": 8, "recipe.branches.mask_channels": (8,), "log_every": 1}
    smoke |= {"data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke, pool={"recipe.classifying.pooling": "pool"})
