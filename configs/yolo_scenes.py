"""YOLO on scenes of real digits, upright and side by side.

Paper: Redmon, Divvala, Girshick & Farhadi, You Only Look Once, 2016 (arXiv:1506.02640).
Command: python train.py --config=configs/yolo_scenes.py --workdir=runs/yolo_scenes
Result: VOC07 mAP 0.934, 0.921 and 0.936 on the 1,000 held-out scenes, COCO AP 0.600, 0.625 and 0.613 (seeds 4711,
  2026 and 113).
Time: 13 minutes on two busy CPU cores.
"""

from cvjax.config import experiment, variant

POOL = (0, 2, 2)
STEPS = 3000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.yolo",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            # An 8 x 8 grid: few cells have two digits. Batch normalisation replaces pretraining on ImageNet. The dense
            # layers are shared among cells: each of the paper's would only learn from a 64th of the digits.
            layers=(
                *((24, 3, 1), POOL, (48, 3, 1), POOL, (96, 3, 1), (48, 1, 1), (96, 3, 1), POOL),
                *((192, 3, 1), (96, 1, 1), (192, 3, 1), (96, 1, 1), (192, 3, 1)),
            ),
            hidden=256,
            dropout=0.1,
            batch_norm=True,
            shared=True,
            ema=0.998,
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
                dict(op="random_scale", scale=(0.75, 1.33)),
                dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.91), "ap": (">=", 0.58)},
    )
    smoke = {"steps": 4, "recipe.width": 0.1, "data.batch": 16, "data.eval_batch": 16, "log_every": 1}
    variants = {
        "smoke": smoke | {"data.name": "digit_scenes/smoke"},
        "dense": {"recipe.shared": False, "recipe.hidden": 512},  # dense layers as in the paper
    }
    return variant(config, name, **variants)
