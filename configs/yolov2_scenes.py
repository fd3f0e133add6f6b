"""YOLOv2 on scenes of real digits, upright and side by side.

Paper: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242).
Command: python train.py --config=configs/yolov2_scenes.py --workdir=runs/yolov2_scenes
Result: VOC07 mAP 0.951 on the 1,000 held-out scenes, 0.989 by area, COCO AP 0.682 (seed 2027; 102 and 104: 0.939 and
  0.947, AP 0.689 and 0.682). Hand-picked anchors: 0.941 and AP 0.682 (seed 110), no difference on upright digits of
  similar sizes; no passthrough: 0.933 and AP 0.654 (seed 111).
Time: 131 ms per step on two idle CPU cores, 11 minutes without compilation and evaluation.
"""

from cvjax.config import experiment, variant

STEPS = 4800
HAND_PICKED = ((1.0, 1.0), (2.0, 2.0), (3.0, 3.0), (2.0, 4.0), (4.0, 2.0))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.yolov2",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            # As printed by python -m cvjax.programs.anchors.
            anchors=((0.966, 1.709), (1.25, 2.056), (1.528, 2.514), (1.811, 2.963), (2.167, 3.273)),
            width=16,
            stages=(1, 1, 3, 3),  # cells of 8 pixels, for small digits
            ema=0.998,
            detection=dict(score_threshold=0.0005, iou_threshold=0.5),
            # The paper starts from an ImageNet classifier and takes a hundred times as many steps.
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
        expect={"map_voc07": (">=", 0.93), "ap": (">=", 0.674)},
    )
    smoke = {
        "steps": 4,
        "recipe.width": 4,
        "recipe.stages": (1, 1, 1, 1),
        "data.batch": 16,
        "data.eval_batch": 16,
        "log_every": 1,
    }
    variants = {
        "smoke": smoke | {"data.name": "digit_scenes/smoke"},
        # Ablations of the paper's table 2, without bars.
        "hand_picked_anchors": {"recipe.anchors": HAND_PICKED},
        "no_passthrough": {"recipe.passthrough": False},
    }
    return variant(config, name, **variants)
