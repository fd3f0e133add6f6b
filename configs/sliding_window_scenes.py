"""Sliding windows on scenes of real digits, upright and side by side.

Paper: Rowley, Baluja & Kanade, Neural Network-Based Face Detection, 1998; run as a convolution as in Sermanet et al.,
OverFeat, 2014 (arXiv:1312.6229).
Command: python train.py --config=configs/sliding_window_scenes.py --workdir=runs/sliding_window_scenes
Result: VOC07 mAP 0.787 on the 1,000 held-out scenes, 0.817 by area, COCO AP 0.305 (seed 2026; 112 and 114: 0.785 and
  0.778, AP 0.304 and 0.296). In a longer run, suppression within each class was 0.01 better, but with ten times as
  many false detections scored above 0.3.
Time: 9 minutes on two CPU cores, compilation and evaluation included.
"""

from cvjax.config import experiment, variant

STEPS = 2000
HEIGHTS, ASPECTS = (12.5, 15.5, 19.0, 23.0, 28.0), (0.5, 0.7)  # cover nearly all digits


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.sliding_window",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            sizes=tuple((aspect * height, height) for height in HEIGHTS for aspect in ASPECTS),
            ema=0.998,
            detection=dict(iou_threshold=0.1),  # these digits stand side by side
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(
            name="digit_scenes/plain_64",
            max_boxes=8,
            batch=32,
            eval_batch=64,
            transforms=(dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.771), "ap": (">=", 0.289)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.hidden": 16, "recipe.sizes": ((14.0, 20.0),), "log_every": 1}
    smoke |= {"data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
