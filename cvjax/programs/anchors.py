"""Anchors for YOLOv2 and YOLO9000, clustered from the boxes of a config's training set as its network sees them.

python -m cvjax.programs.anchors --config=configs/yolov2_scenes.py
"""

import inspect
import sys

import jax

from cvjax import command, config, data
from cvjax.core import class_names
from cvjax.detection import yolo9000, yolov2
from cvjax.errors import UserError
from cvjax.nets.darknet import check_stages

CONFIG = command.define_flag()
SYSTEMS = {"detection.yolov2": yolov2.recipe, "detection.yolo9000": yolo9000.recipe}


def main() -> None:
    """Prints as many anchors as the config has."""
    command.parse_flags(sys.argv)
    chosen = config.as_dict(CONFIG.value)
    system = SYSTEMS.get(chosen["system"])
    if system is None:
        raise UserError(f"config.system={chosen['system']!r} has no anchors to cluster: {' and '.join(SYSTEMS)} have.")
    defaults = {name: parameter.default for name, parameter in inspect.signature(system).parameters.items()}
    made = {**defaults, **chosen["recipe"]}
    batches = data.load({**chosen["data"], "eval_split": chosen["data"]["train_split"]}, seed=0).evaluate()
    if "unboxed" in made:
        names = class_names(made["classes"])
        withheld = [names.index(name) for name in made["unboxed"]]
        batches = (jax.device_get(yolo9000.withhold(batch, withheld, len(names))[0]) for batch in batches)
    anchors, fit = yolov2.cluster(batches, check_stages(made["stages"]), len(made["anchors"]))
    print(f"anchors={tuple(map(tuple, anchors))}\nmean IoU with the nearest: {fit:.3f}")


if __name__ == "__main__":
    command.explained(main)
