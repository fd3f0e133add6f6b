"""SPP-net on scenes of real digits, upright and side by side.

The paper's convolutions are those of an ImageNet classifier, and stay as they are; here they are trained with the head.
The variant `frozen` is the paper's way, with the convolutions of configs/rcnn_scenes.py.

Paper: He, Zhang, Ren & Sun, Spatial Pyramid Pooling in Deep Convolutional Networks, 2014 (arXiv:1406.4729).
Command: python train.py --config=configs/spp_net_scenes.py --workdir=runs/spp_net_scenes
Result: VOC07 mAP 0.903 on the 1,000 held-out scenes, COCO AP 0.622 (seed 9801).
Time: 9 CPU minutes.
"""

from typing import Any

from cvjax.config import experiment, variant

STEPS = 4000


def search(most: int = 200) -> dict[str, Any]:
    """Selective search, as configs/rcnn_scenes.py has it."""
    arguments = dict(most=most, thresholds=(100.0, 200.0), region=20, smallest=6)
    function = "cvjax.ops.proposals:selective_search"
    return dict(function=function, kind="boxes", max_boxes=most, arguments=arguments)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, `softmax` is an ablation."""
    config = experiment(
        "detection.spp_net",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            stages=(1, 2, 2),
            width=16,
            hidden=128,
            side=128,
            levels=(4, 2, 1),
            frozen=False,
            dropout=0.25,
            windows=32,  # of few images: their convolutions cost the same whatever their number
            positive_share=0.5,
            search=search(),
            ema=0.998,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                warmup=100,
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
        checkpoint_every=500,
        expect={"map_voc07": (">=", 0.77)},
    )
    few = search(40)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.derive": dict(proposals=few)}
    smoke |= {"recipe.search": few, "recipe.stages": (1, 1), "recipe.width": 4, "recipe.hidden": 16}
    smoke |= {"recipe.side": 64, "recipe.windows": 8, "recipe.svm.images": 32}
    variants = {
        "softmax": {"recipe.classifier": "softmax"},
        "frozen": {"recipe.frozen": True, "borrow": {"vgg": "runs/rcnn_scenes/vgg"}},
    }
    return variant(config, name, smoke=smoke, **variants)
