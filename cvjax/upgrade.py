"""Conversion of configs and states from earlier versions. A rename adds a line to one of these tables."""

from collections.abc import Mapping
from typing import Any

# config.system
SYSTEMS = {
    **{f"generative.{name}": f"generative.gans.{name}" for name in ("gan", "wgan", "sagan")},
    **{f"generative.{name}": f"generative.autoencoders.{name}" for name in ("autoencoder", "vae")},
    **{
        f"generative.{name}": f"generative.autoregressive.{name}" for name in ("pixelcnn", "gated_pixelcnn", "pixelrnn")
    },
}
SELECTION = ("score_threshold", "iou_threshold", "max_detections", "flip_test", "across_classes")
ARCHITECTURE = ("layers", "width", "first_kernel", "kernel", "head", "dropout")
REGION = ("object_weight", "no_object_weight", "class_weight", "coordinate_weight", "ignore_iou", "rescore")
FEATURES = ("backbone", "depth", "width", "stem", "strides", "fpn", "channels")
CLASSIFYING = ("pooling", "pooled", "canonical", "hidden", "dropout", "beta")
# config.recipe: {system: {old dotted key: new one}}; None for a removed key.
RECIPE_KEYS: dict[str, dict[str, str | None]] = {
    **{system: {"measure": None, "samples_per_example": None} for system in SYSTEMS.values()},
    **{
        f"detection.{name}": {key: f"detection.{key}" for key in SELECTION}
        for name in ("sliding_window", "yolo", "yolov2", "yolo9000", "retinanet")
    },
}
for _name in ("pixelcnn", "gated_pixelcnn", "pixelrnn"):
    RECIPE_KEYS[f"generative.autoregressive.{_name}"] |= {key: f"architecture.{key}" for key in ARCHITECTURE}
RECIPE_KEYS["detection.faster_rcnn"] = {
    "rpn_channels": "proposing.channels",
    "regions": "classifying.count",
    **{key: f"proposing.{key}" for key in ("sizes", "ratios", "anchors")},
    **{key: f"features.{key}" for key in FEATURES},
    **{key: f"classifying.{key}" for key in CLASSIFYING},
}
for _name in ("yolov2", "yolo9000"):
    RECIPE_KEYS[f"detection.{_name}"] |= {key: f"loss.{key}" for key in REGION}


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a config (plain dicts) of an earlier version under the present names; new keys stay absent."""
    if "system" not in config:  # not a config, as its reader will say
        return dict(config)
    upgraded = dict(config)
    upgraded["system"] = SYSTEMS.get(config["system"], config["system"])
    recipe = dict(config.get("recipe", {}))
    if recipe.get("measure") in ("digits", "pixels"):
        upgraded.setdefault("judge", recipe["measure"])
    if "dtype" in recipe:  # of detectors and classifiers; now every system's
        upgraded.setdefault("precision", recipe.pop("dtype"))
    for old, new in RECIPE_KEYS.get(upgraded["system"], {}).items():
        if old in recipe:
            value = recipe.pop(old)
            if new is not None:
                _put(recipe, new.split("."), value)
    if "recipe" in config:
        upgraded["recipe"] = recipe
    if "init_from" in upgraded:
        source = upgraded.pop("init_from")
        if source:  # it used the latest parameters, never the average
            upgraded["borrow"] = {source.rpartition("/")[2]: f"{source}@latest"}
    return upgraded


def upgrade_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the fields of a saved `State`; before version 0.3, averages and statistics were in `extra`."""
    if "stats" in state:
        return dict(state)
    params, extra = state["params"], dict(state["extra"])
    stats, average = extra.pop("batch_stats", {}), extra.pop("ema", {})
    if stats and not stats.keys() <= params.keys():  # RetinaNet saved those of its only network with statistics
        stats = {"resnet": stats}
    if "params" in average:  # and a joint average of both networks
        statistics = {"resnet": average["batch_stats"]}
        average = {
            name: {"params": params, "batch_stats": statistics.get(name)} for name, params in average["params"].items()
        }
    average = {name: _variables(values) for name, values in average.items()}
    stats = {name: values for name, values in stats.items() if values}
    return {**state, "stats": stats, "average": average, "frozen": {}, "extra": extra}


def _variables(values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the Linen variables of a network whose average was of the parameters alone, or of statistics too."""
    if "params" not in values:
        return {"params": values}
    return {name: value for name, value in values.items() if value}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *groups, last = path
    for group in groups:
        tree[group] = dict(tree.get(group, {}))
        tree = tree[group]
    tree[last] = value
