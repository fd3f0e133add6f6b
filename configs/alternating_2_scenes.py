"""Faster R-CNN's alternating training on scenes of real digits, 2 of 4: a detector on proposals of run 1.

Paper: Ren, He, Girshick & Sun, Faster R-CNN, 2015 (arXiv:1506.01497), section 3.2.
Command: python train.py --config=configs/alternating_2_scenes.py --workdir=runs/alternating_2_scenes
Result: VOC07 mAP 0.939 on the 1,000 held-out scenes, COCO AP 0.744 (seed 9801).
Time: 16 CPU minutes for all four runs.
"""

from cvjax.config import experiment, variant

STEPS = 1500
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
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.alternating",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            step=2,
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
        borrow=dict(
            proposer_resnet="runs/alternating_1_scenes/resnet",
            rpn="runs/alternating_1_scenes/rpn",
        ),
        steps=STEPS,
        log_every=100,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        expect={"map_voc07": (">=", 0.9)},
    )
    smoke = {"steps": 4, "recipe.features.width": 4, "recipe.classifying.hidden": 16, "recipe.proposing.channels": 8}
    smoke |= {"log_every": 1, "data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
