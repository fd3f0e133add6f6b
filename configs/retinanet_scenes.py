"""RetinaNet on scenes of real digits, upright and side by side.

Paper: Lin, Goyal, Girshick, He & Dollár, Focal Loss for Dense Object Detection, 2017 (arXiv:1708.02002).
Command: python train.py --config=configs/retinanet_scenes.py --workdir=runs/retinanet_scenes
Result: VOC07 mAP 0.949 on the 1,000 held-out scenes, 0.985 by area, COCO AP 0.767 (seed 101; 103 and 105: 0.937 and
  0.933, AP 0.751 and 0.760). Without the pyramid: 0.871 and AP 0.669 (seed 108); cross-entropy in place of focal loss:
  0.932 and AP 0.720 (seed 109). A quarter of the steps: 0.894 and AP 0.651 from the backbone of
  configs/resnet_digits.py, 0.464 and AP 0.305 from scratch (seed 2028).
Time: 245 ms per step on two idle CPU cores, 12 minutes without compilation and evaluation.
"""

from cvjax.config import experiment, variant

STEPS = 3000
# `pretrained` starts from a classifier, as the paper does; `short` takes the same number of steps from scratch.
SHORT = {"steps": STEPS // 4, "recipe.optimiser.schedule.decay_steps": STEPS // 4 - 100}
PRETRAINED = SHORT | {
    "borrow": {"resnet": "runs/resnet_digits/classifier/resnet"},
    "expect": {"map_voc07": (">=", 0.85), "ap": (">=", 0.6)},  # `short` misses both by far
}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, the other variants are ablations."""
    config = experiment(
        "detection.retinanet",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            depth=18,
            width=16,
            stem="small",
            strides=(2, 2, 2, 2),
            levels=(3, 4),  # strides of 4 and 8 pixels; the digits are 12 to 28 high
            sizes=(11.0, 18.0),
            scales=(1.0, 1.3),
            ratios=(1.2, 1.8),
            channels=48,
            subnet_depth=2,
            subnet_deviation=0.03,  # the features' scale is that of .01 with 256 channels
            candidates=200,
            ema=0.998,
            detection=dict(score_threshold=0.01),
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
        expect={"map_voc07": (">=", 0.918), "ap": (">=", 0.739)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.channels": 8, "recipe.strides": (2, 2, 2), "log_every": 1}
    smoke |= {"data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    variants = {
        "short": SHORT,
        "pretrained": PRETRAINED,
        # Ablations of table 1 of the paper, and of Lin et al., Feature Pyramid Networks for Object Detection, 2017,
        # without bars.
        "cross_entropy": {"recipe.gamma": 0.0, "recipe.alpha": None},
        "no_fpn": {"recipe.fpn": False, "recipe.strides": (2, 2, 2)},
    }
    return variant(config, name, smoke=smoke, **variants)
