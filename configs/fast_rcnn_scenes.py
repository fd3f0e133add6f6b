"""Fast R-CNN on scenes of real digits, upright and side by side.

The paper starts from an ImageNet classifier, and takes for background only regions that overlap an object a little;
from scratch, any region that shows none will do.

Paper: Girshick, Fast R-CNN, 2015 (arXiv:1504.08083).
Command: python train.py --config=configs/fast_rcnn_scenes.py --workdir=runs/fast_rcnn_scenes
Result: VOC07 mAP 0.907 on the 1,000 held-out scenes, COCO AP 0.666 (seed 9802).
Time: 12 CPU minutes.
"""

from typing import Any

from cvjax.config import experiment, variant

STEPS = 6000


def search(most: int = 200) -> dict[str, Any]:
    """Selective search, as configs/rcnn_scenes.py has it."""
    arguments = dict(most=most, thresholds=(100.0, 200.0), region=20, smallest=6)
    function = "cvjax.ops.proposals:selective_search"
    return dict(function=function, kind="boxes", max_boxes=most, arguments=arguments)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "detection.fast_rcnn",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            stages=(1, 2, 2),
            width=16,
            hidden=128,
            dropout=0.25,
            side=128,
            bins=5,
            regions=32,
            foreground=0.5,
            background=(0.0, 0.5),
            search=search(),
            ema=0.998,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                warmup=100,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="digit_scenes/plain_64",
            max_boxes=8,
            batch=8,
            eval_batch=8,
            derive=dict(proposals=search()),
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
        checkpoint_every=500,
        checkpoint_best="map_voc07",
        expect={"map_voc07": (">=", 0.9)},
    )
    few = search(40)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.derive": dict(proposals=few)}
    smoke |= {"recipe.search": few, "recipe.stages": (1, 1), "recipe.width": 4, "recipe.hidden": 16}
    smoke |= {"recipe.side": 64, "recipe.regions": 8}
    return variant(config, name, smoke=smoke)
