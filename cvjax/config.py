"""Experiments: the top level that every config shares, and its check."""

import dataclasses
import importlib
import importlib.util
import inspect
import json
import pkgutil
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict, config_dict

import cvjax
from cvjax import data, optim
from cvjax.core import Recipe
from cvjax.errors import UserError, suggest
from cvjax.rundir import judge
from cvjax.signature import cast, written

# What may differ when a run is continued: it changes when things are looked at, never the numbers.
FREE_ON_RESUME = ("steps", "log_every", "eval_every", "figure_every", "checkpoint_every", "expect")
FAMILIES = ("generative", "translation", "detection", "segmentation", "recognition", "faces", "multimodal")
FAMILIES += ("interpret", "attacks")
# Of config.data, where None.
OPTIONAL = dict(name=str, folder=str, data_dir=str, eval_batch=int, in_memory=bool, max_boxes=int, masks=str)
OPTIONAL |= dict(per_class=int)

DEFAULTS = dict(
    system="",  # import path below cvjax: "generative.gan"
    recipe={},  # keyword arguments of the system's recipe()
    data=data.DEFAULTS,  # which examples, in what batches, transformed how
    steps=1000,  # training steps in all, those before a resume included
    seed=0,  # of initialisation, of each step's key and of the data's order
    log_every=100,  # steps between two rows of training metrics; 0: never, as for the next three
    eval_every=0,  # steps between two evaluations; there is always one at the end
    figure_every=0,  # steps between two sets of figures; there is always one at the end
    checkpoint_every=1000,  # steps between two checkpoints; there is always one at the end
    checkpoint_keep=2,  # how many of the latest are kept
    checkpoint_best="",  # the figure of `expect` by which the best is kept beside them; "": none
    mesh=dict(data=-1, fsdp=1),  # devices along each axis; -1: all that are left
    init_from="",  # "RUN/NETWORK": that network's parameters start from another run's
    profile=(),  # (first, last) step of a JAX profile written below the run's folder
    expect={},  # {figure: (relation, bar)}, printed beside what the finished run reached
)


def experiment(system: str, **values: Any) -> ConfigDict:
    """Builds a config: the defaults of the shared top level and of the system's recipe, overlaid with `values`.

    Every argument of the system's `recipe()` becomes a key of `config.recipe`, so each can be set by a flag; one
    that is a dataclass becomes a group of keys, its fields.

    Args:
      system: import path below cvjax, such as "generative.vae".
      **values: top-level keys; dicts are laid over the defaults one level deep, and over those of a dataclass.

    Returns:
      The config, its top level locked.

    Raises:
      UserError: an unknown system or key.
    """
    values = {"system": system, **values}
    _check_names(values, DEFAULTS, "config")
    _check_names(values.get("data", {}), data.DEFAULTS, "config.data")
    merged = {}
    for key, default in DEFAULTS.items():
        if key == "recipe":
            default = {name: parameter.default for name, parameter in recipe_parameters(system).items()}
            _check_names(values.get(key, {}), default, "config.recipe")
        overlay = isinstance(default, Mapping) and key != "expect"
        merged[key] = {**default, **values.get(key, {})} if overlay else values.get(key, default)
        if key == "data":
            merged[key] = data.complete(merged[key])
        if key == "recipe":
            merged[key] |= _groups(default, values.get(key, {}))
    merged["recipe"] = {k: v for k, v in merged["recipe"].items() if v is not inspect.Parameter.empty}
    return ConfigDict(_placeholders(merged, recipe_parameters(system))).lock()


def variant(config: ConfigDict, name: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """Applies the variant of a config that `--config=FILE:NAME` asks for.

    Args:
      config: the full experiment.
      name: the part behind the colon, or "".
      **variants: what each known name changes, by dotted key: `smoke={"steps": 4, "data.batch": 8}`.

    Returns:
      The config, changed.

    Raises:
      UserError: an unknown name.
    """
    if name and name not in variants:
        raise UserError(f"the config has no variant {name!r}. {suggest(name, variants)}")
    config.update_from_flattened_dict(variants.get(name, {}))
    return config


def systems() -> list[str]:
    """Names every system: each module of a family that has a `recipe`."""
    found = []
    for family in FAMILIES:
        folder = Path(cvjax.__path__[0]) / family
        for module in pkgutil.walk_packages([str(folder)], prefix=f"{family}."):
            spec = importlib.util.find_spec(f"cvjax.{module.name}")
            if spec and spec.origin and "\ndef recipe(" in Path(spec.origin).read_text():
                found.append(module.name)
    return found


def find_system(name: str) -> types.ModuleType:
    """Imports a system's module.

    Args:
      name: import path below cvjax, such as "generative.gan".

    Raises:
      UserError: there is no such system.
    """
    if name not in systems():
        raise UserError(f"config.system={name!r}: there is no such system. {suggest(name, systems())}")
    return importlib.import_module(f"cvjax.{name}")


def recipe_parameters(system: str) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a system's `recipe()` by name."""
    return inspect.signature(find_system(system).recipe).parameters


def build(config: ConfigDict | Mapping) -> Recipe:
    """Makes the recipe of an experiment.

    Args:
      config: the experiment, or the same as plain dicts; lists, as JSON has them, count as tuples.

    Raises:
      UserError: an unknown system, or an argument that its recipe refuses.
    """
    values = as_dict(config)
    return find_system(values["system"]).recipe(**_recipe_arguments(values["system"], values["recipe"]))


def check(config: ConfigDict, devices: int = 1) -> None:
    """Refuses a config that could not run, before anything is compiled or written.

    Args:
      config: the experiment.
      devices: how many devices share a batch.

    Raises:
      UserError: what is wrong, under which key, and what would be right.
    """
    values = as_dict(config)
    _check_names(values, DEFAULTS, "config")
    for key, default in DEFAULTS.items():
        _cast(f"config.{key}", values[key], type(default))
    for key in ("steps", "checkpoint_keep"):
        if values[key] < 1:
            raise UserError(f"config.{key}={values[key]}: must be at least 1.")
    for key in ("seed", "log_every", "eval_every", "figure_every", "checkpoint_every"):
        if values[key] < 0:
            raise UserError(f"config.{key}={values[key]}: must not be negative.")
    if values["profile"] and not (len(values["profile"]) == 2 and 0 < values["profile"][0] <= values["profile"][1]):
        raise UserError(f"config.profile={values['profile']}: expected (first, last) step, such as (10, 15).")
    judge(values["expect"], {})
    if values["checkpoint_best"] and values["checkpoint_best"] not in values["expect"]:
        best = values["checkpoint_best"]
        raise UserError(f"config.checkpoint_best={best!r}: no such figure in expect. {suggest(best, values['expect'])}")
    _recipe_arguments(values["system"], values["recipe"])
    _check_classes(values, data.check(values["data"], devices))


def _check_classes(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Holds a recipe's argument `classes`, where it has one, against the classes of the dataset."""
    wanted, folder, name = values["recipe"].get("classes"), values["data"]["folder"], values["data"]["name"]
    if not isinstance(wanted, int):  # names; or the recipe has no such argument
        wanted = None if wanted is None else len(wanted)
    if wanted is None or wanted == len(names):
        return
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"config.recipe.classes={wanted}, but {folder or name} has {len(names)} classes ({shown}): set "
            f"--config.recipe.classes={len(names)}."
        )
    if folder:
        raise UserError(
            f"config.recipe.classes={wanted}, but data.folder={str(folder)!r} has no classes: move the images of each "
            "class into a sub-folder of its own."
        )


def as_dict(config: ConfigDict | Mapping) -> dict[str, Any]:
    """Returns the config as plain dicts, with absent placeholders as None."""
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def difference(old: Mapping, new: Mapping) -> list[str]:
    """Lists what differs between two configs beyond what may change on resuming.

    Args:
      old: the config of the run that exists, read from JSON.
      new: the config asked for.

    Returns:
      One line a differing key, `data.batch: 64 in the run, 32 asked for`.
    """
    flat_old, flat_new = (_flatten(json.loads(json.dumps(side))) for side in (old, new))
    return [
        f"{key}: {flat_old.get(key, 'absent')!r} in the run, {flat_new.get(key, 'absent')!r} asked for"
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key) != flat_new.get(key) and key.split(".")[0] not in FREE_ON_RESUME
    ]


def load(path: str) -> ConfigDict:
    """Loads a config file.

    Args:
      path: `configs/vae_digits.py`, or `configs/vae_digits.py:smoke` for a variant.

    Raises:
      UserError: no such file or variant, or a file that does not give a config.
    """
    file, _, name = str(path).partition(":")
    if not Path(file).is_file():
        near = [str(p) for p in sorted(Path("configs").glob("*.py"))]
        raise UserError(f"--config={path}: there is no file {file!r}. {suggest(file, near)}")
    spec = importlib.util.spec_from_file_location(Path(file).stem, file)
    if spec is None or spec.loader is None:
        raise UserError(f"--config={path}: {file!r} is not a Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
        return module.get_config(name)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    except Exception as error:
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == file]
        where = f"{file}, line {lines[-1]}" if lines else file
        raise UserError(f"{where} does not give a config: {type(error).__name__}: {error}") from error


def _check_names(values: Mapping, known: Mapping, where: str) -> None:
    for name in values:
        if name not in known:
            raise UserError(f"{where}.{name}: there is no such key. {suggest(name, known)}")


def _recipe_arguments(system: str, values: Mapping) -> dict[str, Any]:
    """Checks the keyword arguments of a recipe against its signature; lists come back as tuples."""
    recipe = find_system(system).recipe
    parameters, hints = inspect.signature(recipe).parameters, typing.get_type_hints(recipe, include_extras=True)
    _check_names(values, parameters, "config.recipe")
    missing = [n for n, p in parameters.items() if p.default is inspect.Parameter.empty and n not in values]
    if missing:
        raise UserError(f"config.recipe.{missing[0]} is missing: {system} cannot do without it.")
    arguments = {name: _cast(f"config.recipe.{name}", value, hints.get(name, Any)) for name, value in values.items()}
    arguments = {name: _group(f"config.recipe.{name}", value, hints.get(name)) for name, value in arguments.items()}
    for name in arguments:
        if name.endswith("optimiser") and arguments[name] is not None:
            try:
                optim.build(arguments[name])
            except UserError as error:
                raise UserError(f"config.recipe.{name}: {error}") from None
    return arguments


def _groups(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments whose default is a dataclass, as dicts of all fields, overlaid with the keys that a config has."""
    groups = {name: dataclasses.asdict(value) for name, value in defaults.items() if dataclasses.is_dataclass(value)}
    for name in groups.keys() & values.keys():
        _check_names(values[name], groups[name], f"config.recipe.{name}")
        groups[name] |= values[name]
    return groups


def _group(where: str, value: Any, annotation: Any) -> Any:
    """Makes the dataclass that an argument is annotated with of the group of keys that a config has for it."""
    if not dataclasses.is_dataclass(annotation) or isinstance(value, annotation):
        return value
    if not isinstance(value, Mapping):
        raise UserError(f"{where}={value!r}: expected a group of keys, {', '.join(annotation.__annotations__)}.")
    hints = typing.get_type_hints(annotation, include_extras=True)
    _check_names(value, hints, where)
    return annotation(**{name: _cast(f"{where}.{name}", item, hints[name]) for name, item in value.items()})


def _cast(where: str, value: Any, annotation: Any) -> Any:
    try:
        return cast(value, annotation)
    except TypeError:
        raise UserError(f"{where}={value!r}: expected {written(annotation)}.") from None


def _placeholders(values: Mapping, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Gives each None a type, so that a flag can set it."""

    def typed(name: str, value: Any, hints: Mapping) -> Any:
        if dataclasses.is_dataclass(hints.get(name)):
            fields = typing.get_type_hints(hints[name], include_extras=True)
            return {key: _either(inner, fields[key]) for key, inner in value.items()}
        if isinstance(value, Mapping):
            return {key: typed(key, inner, {}) for key, inner in value.items()}
        if value is not None:
            return value
        kinds = [k for k in typing.get_args(hints.get(name)) if k in (int, float, str, bool, tuple)]
        return config_dict.placeholder(kinds[0] if kinds else OPTIONAL.get(name, object))

    hints = {name: parameter.annotation for name, parameter in parameters.items()}
    return {
        group: {key: typed(key, value, hints) for key, value in inner.items()} if isinstance(inner, Mapping) else inner
        for group, inner in values.items()
    }


def _either(value: Any, annotation: Any) -> Any:
    """Lets a flag give a field of a group any of the types of its union, `float | tuple[float, float]`."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return config_dict.FieldReference(value, field_type=object) if union else value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or (prefix and not tree):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
