"""Runs of earlier versions, brought to the present names: their configs and the layout of their states.

There is one table for each kind of change, so that whoever renames something adds a line here.
"""

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
# config.recipe: {system: {dotted key: the present one}}, None for a key that is gone.
RECIPE_KEYS: dict[str, dict[str, str | None]] = {
    **{system: {"measure": None, "samples_per_example": None} for system in SYSTEMS.values()},
    **{
        f"detection.{name}": {key: f"detection.{key}" for key in SELECTION}
        for name in ("sliding_window", "yolo", "yolov2", "yolo9000", "retinanet")
    },
}
for _name in ("pixelcnn", "gated_pixelcnn", "pixelrnn"):
    RECIPE_KEYS[f"generative.autoregressive.{_name}"] |= {key: f"architecture.{key}" for key in ARCHITECTURE}
for _name in ("yolov2", "yolo9000"):
    RECIPE_KEYS[f"detection.{_name}"] |= {key: f"loss.{key}" for key in REGION}


def upgrade_config(config: Mapping[str, Any]) -> dict[str, Any]:
    """Renames what has been renamed since a config was written.

    Args:
      config: as plain dicts.

    Returns:
      The config as the present version would have written it, but for keys that are new.
    """
    if "system" not in config:  # it is no config, which whoever reads it says
        return dict(config)
    upgraded = dict(config)
    upgraded["system"] = SYSTEMS.get(config["system"], config["system"])
    recipe = dict(config.get("recipe", {}))
    if recipe.get("measure") in ("digits", "pixels"):
        upgraded.setdefault("judge", recipe["measure"])
    for old, new in RECIPE_KEYS.get(upgraded["system"], {}).items():
        if old in recipe:
            value = recipe.pop(old)
            if new is not None:
                _put(recipe, new.split("."), value)
    upgraded["recipe"] = recipe
    if "init_from" in upgraded:
        source = upgraded.pop("init_from")
        if source:  # it took the latest parameters, never the average
            upgraded["borrow"] = {source.rpartition("/")[2]: f"{source}@latest"}
    return upgraded


def upgrade_state(state: Mapping[str, Any]) -> dict[str, Any]:
    """Moves averages and batch statistics out of `extra`, where states had them before version 0.3.

    Args:
      state: the fields of a `core.State` as they were saved.

    Returns:
      The fields as they are now; the same if they are already.
    """
    if "stats" in state:
        return dict(state)
    params, extra = state["params"], dict(state["extra"])
    stats, average = extra.pop("batch_stats", {}), extra.pop("ema", {})
    if stats and not stats.keys() <= params.keys():  # RetinaNet's were those of its only network that has any
        stats = {"resnet": stats}
    if "params" in average:  # and its average was one of both networks
        held = {"resnet": average["batch_stats"]}
        average = {
            name: {"params": params, "batch_stats": held.get(name)} for name, params in average["params"].items()
        }
    average = {name: _variables(held) for name, held in average.items()}
    stats = {name: held for name, held in stats.items() if held}
    return {**state, "stats": stats, "average": average, "frozen": {}, "extra": extra}


def _variables(held: Mapping[str, Any]) -> dict[str, Any]:
    """The Linen variables of a network of which the parameters alone, or statistics too, were averaged."""
    if "params" not in held:
        return {"params": held}
    return {name: value for name, value in held.items() if value}


def _put(tree: dict[str, Any], path: list[str], value: Any) -> None:
    *groups, last = path
    for group in groups:
        tree[group] = dict(tree.get(group, {}))
        tree = tree[group]
    tree[last] = value
