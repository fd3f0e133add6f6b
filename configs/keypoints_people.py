"""Mask R-CNN's branch of joints on drawn people: a box and COCO's 17 joints of each.

Regions are read by RoIAlign from the finest level of a pyramid, whose cells have 2 pixels; the others are for
proposals.
The variant `masks` trains the branch of masks beside it, as in the paper's table 5.

Paper: He, Gkioxari, Dollár & Girshick, Mask R-CNN, 2017 (arXiv:1703.06870), section 5.
Command: python train.py --config=configs/keypoints_people.py --workdir=runs/keypoints_people
Result: AP of joints 0.565 on the 600 held-out scenes, 0.884 at an OKS of 0.5; AP of boxes 0.735 (seed 9802). Its bar is
  missed: a joint of a leg or an arm is often found on the other one.
Time: 14 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 2500
PROPOSING = dict(
    channels=48,
    sizes=((18.0,), (26.0,), (36.0,), (48.0,)),
    ratios=(1.0, 1.7, 2.7),
    anchors=64,
    before=200,
    after=48,
    test_before=200,
    test_after=48,
    smallest=4.0,
)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "masks" has no bars."""
    config = experiment(
        "detection.mask_rcnn",
        recipe=dict(
            shape=(64, 64, 3),
            classes=1,
            masks=False,
            keypoints=17,
            features=dict(depth=18, width=32, stem="small", strides=(2, 2, 2), fpn=True, channels=48),
            proposing=PROPOSING,
            classifying=dict(canonical=128.0, hidden=128, count=16),
            branches=dict(mask_channels=(32, 32), keypoint_channels=(48, 48, 48, 48), keypoint_weight=0.2),
            ema=0.998,
            detection=dict(score_threshold=0.05, iou_threshold=0.5, max_detections=12),
            # The paper starts from an ImageNet classifier and takes 90,000 steps of 16.
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
            name="drawn_people/apart_64",
            max_boxes=4,
            keypoints=dict(),
            batch=16,
            eval_batch=40,
            transforms=(
                dict(op="flip"),
                dict(op="color_jitter", brightness=0.1, contrast=0.2, saturation=0.2),
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="keypoint_ap",
        expect={"keypoint_ap": (">=", 0.8)},
    )
    smoke = {"steps": 4, "recipe.features.width": 4, "recipe.features.channels": 8, "recipe.classifying.hidden": 16}
    smoke |= {"recipe.proposing.channels": 8, "recipe.branches.keypoint_channels": (8,), "log_every": 1}
    smoke |= {"data.name": "drawn_people/smoke", "data.batch": 16, "data.eval_batch": 16}
    masks = {"recipe.masks": True, "data.keep": ("instances",)}
    return variant(config, name, smoke=smoke, masks=masks)
