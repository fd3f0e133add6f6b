"""R-CNN on scenes of real digits, upright and side by side.

`python -m cvjax.programs.proposals --config=configs/rcnn_scenes.py` computes the proposals ahead of training; otherwise
the first run does. With the variant `proposals` it measures selective search beside EdgeBoxes and a grid.

Paper: Girshick, Donahue, Darrell & Malik, Rich Feature Hierarchies for Accurate Object Detection, 2014
  (arXiv:1311.2524).
Command: python train.py --config=configs/rcnn_scenes.py --workdir=runs/rcnn_scenes
Result: VOC07 mAP 0.888 on the 1,000 held-out scenes, COCO AP 0.695 (seed 9801). Of the 2,919 objects there, 0.983 have
  one of 200 proposals of selective search at an IoU of 0.5 or more, 0.840 one of EdgeBoxes, 0.924 one of the grid (at
  0.7: 0.950, 0.504, 0.268).
Time: 6 CPU minutes.
"""

from typing import Any

from cvjax.config import experiment, variant

STEPS = 2000
FUNCTIONS = "cvjax.ops.proposals"


def proposals(function: str, most: int = 200, **arguments: Any) -> dict[str, Any]:
    """Returns an entry of `data.derive`."""
    return {
        "function": f"{FUNCTIONS}:{function}",
        "kind": "boxes",
        "max_boxes": most,
        "arguments": {"most": most, **arguments},
    }


def search(most: int = 200) -> dict[str, Any]:
    """Selective search for scenes of 64 pixels: the paper's first regions would be larger than the digits."""
    return proposals("selective_search", most, thresholds=(100.0, 200.0), region=20, smallest=6)


def compared() -> dict[str, Any]:
    """Selective search, EdgeBoxes and a grid."""
    sizes = tuple((0.6 * height, height) for height in (14.0, 19.0, 25.0))
    return {
        "proposals": search(),
        "edges": proposals("edge_boxes", smallest=8),
        "grid": proposals("sliding_grid", sizes=sizes, step=0.4),
    }


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, `softmax` and `unmoved` are ablations."""
    config = experiment(
        "detection.rcnn",
        recipe=dict(
            shape=(64, 64, 3),
            classes=10,
            stages=(1, 2, 2),
            width=16,
            hidden=128,
            side=32,
            context=4,
            dropout=0.25,
            windows=16,
            positive_share=0.5,
            svm=dict(images=1000),
            search=search(),
            ema=0.998,
            # The paper starts from an ImageNet classifier.
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
            batch=16,
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
        expect={"map_voc07": (">=", 0.8)},
    )
    few = search(40)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.derive": dict(proposals=few)}
    smoke |= {"recipe.search": few, "recipe.stages": (1, 1), "recipe.width": 4, "recipe.hidden": 16}
    smoke |= {"recipe.side": 16, "recipe.context": 2, "recipe.windows": 8, "recipe.svm.images": 32}
    variants = {
        "softmax": {"recipe.classifier": "softmax"},
        "unmoved": {"recipe.regression": False},
        "proposals": {"data.derive": compared()},
    }
    return variant(config, name, smoke=smoke, **variants)
