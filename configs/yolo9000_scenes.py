"""YOLO9000 on scenes of real digits, where the digits 2, 5 and 8 have no boxes in training.

Of 12,000 training scenes, 7,321 show a 2, 5 or 8. Training only uses the classes in these scenes, not their boxes.
Hierarchy: even and odd, round and straight, digits (cvjax/detection/digits.tree).

Paper: Redmon & Farhadi, YOLO9000: Better, Faster, Stronger, 2017 (arXiv:1612.08242).
Command: python train.py --config=configs/yolo9000_scenes.py --workdir=runs/yolo9000_scenes
Result: VOC07 mAP 0.916 of the classes with boxes and 0.731 of those without on the 1,000 held-out scenes, COCO AP 0.502
  (seed 61803; 106: 0.926, 0.860 and 0.546; 107: 0.926, 0.856 and 0.534). With half the scenes: 0.899 and 0.668.
Time: 240 ms per step, 20 minutes, on one CPU core.
"""

from cvjax.config import experiment, variant

STEPS = 5000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.yolo9000",
        recipe=dict(
            classes=tuple("0123456789"),
            tree="digits",
            unboxed=("2", "5", "8"),
            shape=(64, 64, 3),
            # As printed by python -m cvjax.programs.anchors, which leaves out withheld boxes.
            anchors=((0.995, 1.769), (1.354, 2.29), (1.869, 3.018)),
            width=16,
            stages=(1, 1, 3, 3),
            head=3,
            passthrough=True,
            gate=0.3,
            absent_weight=0.5,  # a scene often shows two of the three classes
            ema=0.998,
            detection=dict(score_threshold=0.0005, iou_threshold=0.5),
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
            name="digit_scenes/plain_64_more",
            max_boxes=8,
            batch=32,
            eval_batch=128,
            # No crop: which digits a crop shows is unknown without their boxes.
            transforms=(
                dict(op="random_scale", scale=(0.8, 1.0), value=0.5),
                dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        expect={"map_boxed": (">=", 0.908), "map_unboxed": (">=", 0.63), "ap": (">=", 0.47)},
    )
    smoke = {
        "steps": 4,
        "recipe.width": 4,
        "recipe.stages": (1, 1, 1, 1),
        "data.batch": 16,
        "data.eval_batch": 16,
        "log_every": 1,
    }
    return variant(config, name, smoke=smoke | {"data.name": "digit_scenes/smoke"})
