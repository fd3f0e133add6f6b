"""Clusters anchors for YOLOv2 and YOLO9000 from the training boxes of a config, after its eval_transforms.

python -m cvjax.programs.anchors --config=configs/yolov2_scenes.py
"""

import sys

import jax

from cvjax import command, config, data
from cvjax.core import class_names
from cvjax.detection import yolo9000, yolov2
from cvjax.errors import UserError
from cvjax.nets.darknet import check_stages

CONFIG = command.define_flag()
SYSTEMS = ("detection.yolov2", "detection.yolo9000")


def main() -> None:
    """Prints anchors, as many as the config has, and how well they fit."""
    command.parse_flags(sys.argv)
    experiment = config.as_dict(CONFIG.value)
    if experiment["system"] not in SYSTEMS:
        raise UserError(
            f"config.system={experiment['system']!r} has no anchors to cluster; {' and '.join(SYSTEMS)} have."
        )
    arguments, settings = experiment["recipe"], experiment["data"]
    batches = data.load({**settings, "eval_split": settings["train_split"]}, seed=0).evaluate()
    if "unboxed" in arguments:
        names = class_names(arguments["classes"])
        unboxed = [names.index(name) for name in arguments["unboxed"]]
        batches = (jax.device_get(yolo9000.withhold(batch, unboxed, len(names))[0]) for batch in batches)
    anchors, fit = yolov2.cluster(batches, check_stages(arguments["stages"]), len(arguments["anchors"]))
    print(f"anchors={tuple(map(tuple, anchors))}\nmean IoU with the closest: {fit:.3f}")


if __name__ == "__main__":
    command.run_main(main)
