"""Experiment configs: the top level that all share, and validation."""

import contextlib
import dataclasses
import hashlib
import importlib
import importlib.util
import inspect
import json
import traceback
import types
import typing
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from ml_collections import ConfigDict, config_dict

import cvjax
from cvjax import data, optim
from cvjax.core import Network, Recipe, class_names, count_classes
from cvjax.data.settings import name_folders, second
from cvjax.errors import UserError, number_of, suggest
from cvjax.precision import in_precision
from cvjax.rundir import check_bars, name_judge, name_sources
from cvjax.signature import Count, Natural, Seed, arguments_of, cast, match

# Keys that may differ on resuming, because they do not change the numbers.
FREE_ON_RESUME = ("steps", "log_every", "eval_every", "judge_every", "figure_every", "checkpoint_every", "expect")
UNCOMPARED = (*FREE_ON_RESUME, "expect_for")
# The settings that bars are set for, and the keys of `data` that do not change the figures.
BAR_SETTINGS = ("system", "recipe", "data", "borrow", "steps", "judge", "judge_samples", "expect")
DATA_LOADING = ("data_dir", "derive_dir", "eval_batch", "in_memory", "workers")
# Types of the keys of config.data that are None by default.
OPTIONAL = dict(name=str, folder=str, data_dir=str, eval_batch=int, in_memory=bool, max_boxes=int, masks=str)
OPTIONAL |= dict(per_class=int, derive_dir=str)
LABEL_NAMES = "label_names"  # an argument of recipes that only pictures show: it changes no figure
SHIPPED = Path(__file__).parent / "configs"


@dataclasses.dataclass(frozen=True)
class Experiment:
    """The top level of every config. An interval of 0 steps means never, except for the evaluation at the end."""

    system: str = ""  # import path below cvjax: "generative.gans.gan"
    recipe: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # keyword arguments of the system's recipe()
    data: Mapping[str, Any] = dataclasses.field(default_factory=lambda: dict(data.DEFAULTS))  # see data/settings.py
    borrow: Mapping[str, str] = dataclasses.field(default_factory=dict)  # {network: source}; see cvjax/borrow.py
    precision: Literal["float32", "bfloat16"] = "float32"  # of the networks' computation; the rest is always float32
    steps: Natural = 1000  # total training steps, including those before a resume; 0 for systems that train nothing
    seed: Seed = 0  # seed of initialisation, of every step's key and of the data order
    log_every: Natural = 100  # steps between rows of training metrics
    eval_every: Natural = 0  # steps between evaluations; there is always one at the end
    judge: str = ""  # measures samples: "digits", "pixels", a file of Inception weights, or a classifier, RUN/NETWORK
    judge_every: Natural = 0  # steps between measurements of samples; 0: at every evaluation
    judge_samples: Count = 1000  # number of measured samples
    figure_every: Natural = 0  # steps between saved figures; there is always one set at the end
    checkpoint_every: Natural = 1000  # steps between checkpoints; there is always one at the end
    checkpoint_keep: Count = 2  # number of latest checkpoints to keep
    checkpoint_best: str = ""  # also keep the best checkpoint by this figure of `expect`; "": none
    mesh: Mapping[str, int] = dataclasses.field(default_factory=lambda: dict(data=-1, fsdp=1))  # -1: all others
    profile: tuple[int, ...] = ()  # (first, last) step of a JAX profile written below the run's folder
    expect: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # {figure: (relation, bar)}
    expect_for: Mapping[str, str] = dataclasses.field(default_factory=dict)  # settings of the bars; set by `experiment`


DEFAULTS = dataclasses.asdict(Experiment())
PRECISIONS = typing.get_args(typing.get_type_hints(Experiment)["precision"])


def experiment(system: str, **values: Any) -> ConfigDict:
    """Builds a config: defaults of the top level and of the system's recipe, overridden by `values`.

    Every argument of the system's `recipe()` becomes a key of `config.recipe`, so that a flag can set it; an argument
    whose default is a dataclass becomes a group of keys. Dicts in `values` are merged with the defaults one level deep,
    dataclass groups too. The config's top level is locked.
    """
    values = {"system": system, **values}
    _check_names(values, DEFAULTS, "config")
    _check_names(values.get("data", {}), data.DEFAULTS, "config.data")
    merged = {}
    for key, default in DEFAULTS.items():
        if key == "recipe":
            default = {name: parameter.default for name, parameter in recipe_parameters(system).items()}
            for name in network_arguments(system):
                default.pop(name)
            _check_names(values.get(key, {}), default, "config.recipe")
        overlay = isinstance(default, Mapping) and key not in ("expect", "expect_for", "borrow")
        merged[key] = {**default, **values.get(key, {})} if overlay else values.get(key, default)
        if key == "data":
            merged[key] = data.complete(merged[key])
        if key == "recipe":
            merged[key] |= _groups(default, values.get(key, {}))
    merged["recipe"] = {k: v for k, v in merged["recipe"].items() if v is not inspect.Parameter.empty}
    config = ConfigDict(_placeholders(merged, recipe_parameters(system)))
    config.expect_for = bar_settings(config)
    return config.lock()


def variant(config: ConfigDict, name: str, **variants: Mapping[str, Any]) -> ConfigDict:
    """Applies the variant that `--config=FILE:NAME` selects, if any; bars hold for it only if it sets its own.

    Each of `variants` has its changes by dotted key: `smoke={"steps": 4, "data.batch": 8}`.
    """
    if name and name not in variants:
        raise UserError(f"the config has no variant {name!r}. {suggest(name, variants)}")
    changes = variants.get(name, {})
    config.update_from_flattened_dict(changes)
    if any(key.split(".")[0] == "expect" for key in changes):
        config.expect_for = bar_settings(config)
    return config


def systems() -> list[str]:
    """Returns the names of all systems: modules in folders of the package that define `recipe`."""
    root = Path(cvjax.__path__[0])
    files = (path for path in sorted(root.glob("*/**/*.py")) if "\ndef recipe(" in path.read_text(encoding="utf-8"))
    return [".".join(path.relative_to(root).with_suffix("").parts) for path in files]


def find_system(name: str) -> types.ModuleType:
    """Imports the module of a system, such as "generative.gans.gan"."""
    file = Path(cvjax.__path__[0], *name.split(".")).with_suffix(".py")
    if not (file.is_file() and "\ndef recipe(" in file.read_text(encoding="utf-8")):
        raise UserError(f"config.system={name!r}: there is no such system. {suggest(name, systems())}")
    return importlib.import_module(f"cvjax.{name}")


def recipe_parameters(system: str) -> Mapping[str, inspect.Parameter]:
    """Returns the parameters of a system's `recipe()` by name."""
    return inspect.signature(find_system(system).recipe).parameters


def network_arguments(system: str) -> list[str]:
    """Returns the arguments of a system's `recipe()` that are networks of other runs, or None."""
    hints = typing.get_type_hints(find_system(system).recipe, include_extras=True)
    return [name for name, hint in hints.items() if hint in (Network, Network | None)]


def build(config: ConfigDict | Mapping, networks: Mapping[str, Network] | None = None) -> Recipe:
    """Makes the recipe of an experiment, which may be plain dicts, with the networks that it takes from other runs."""
    values = as_dict(config)
    arguments = _recipe_arguments(values["system"], values["recipe"])
    recipe = find_system(values["system"]).recipe(**arguments, **(networks or {}))
    return in_precision(recipe, values.get("precision", "float32"))


def check(config: ConfigDict, devices: int = 1) -> tuple[str, ...]:
    """Returns the dataset's class names, or (); raises a UserError if a config cannot run on `devices` devices."""
    values = as_dict(config)
    match(values, arguments_of(Experiment), "config")
    if values["profile"] and not (len(values["profile"]) == 2 and 0 < values["profile"][0] <= values["profile"][1]):
        raise UserError(f"config.profile={values['profile']}: expected (first, last) step, such as (10, 15).")
    check_bars(values["expect"], {})
    if values["checkpoint_best"] and values["checkpoint_best"] not in values["expect"]:
        best = values["checkpoint_best"]
        raise UserError(f"config.checkpoint_best={best!r}: no such figure in expect. {suggest(best, values['expect'])}")
    _recipe_arguments(values["system"], values["recipe"])
    names = data.check(values["data"], devices)
    _check_classes(values, names)
    _check_styles(values)
    return names


def name_classes(config: ConfigDict, names: Sequence[str]) -> ConfigDict:
    """Returns a config whose recipe has the names of the dataset's classes.

    They replace a number, if the recipe takes names too, and are its `label_names` if it has none.
    """
    if tuple(names) == class_names(len(names)):
        return config
    arguments, named = arguments_of(find_system(config.system).recipe), {}
    if config.recipe.get("classes") == len(names) and "classes" in arguments:
        with contextlib.suppress(TypeError):
            named["classes"] = cast(tuple(names), arguments["classes"].annotation)
    if config.recipe.get(LABEL_NAMES) == ():
        named[LABEL_NAMES] = tuple(names)
    if not named:
        return config
    others_changed = "recipe" in changed_settings(config)
    config = config.copy_and_resolve_references()
    with config.ignore_type():
        config.recipe.update(named)
    if config.expect_for and not others_changed:  # the bars hold for names as for their number
        config.expect_for["recipe"] = bar_settings(config)["recipe"]
    return config


def _check_classes(values: Mapping[str, Any], names: Sequence[str]) -> None:
    """Compares a recipe's argument `classes`, if it has one, with the classes of the dataset."""
    wanted, folder, name = values["recipe"].get("classes"), values["data"]["folder"], values["data"]["name"]
    if not isinstance(wanted, int):  # names, or no such argument
        wanted = None if wanted is None else len(wanted)
    if wanted is None or wanted == len(names):
        return
    if names:
        shown = ", ".join(names[:5]) + (", ..." if len(names) > 5 else "")
        raise UserError(
            f"config.recipe.classes={wanted}, but {folder or name} has {number_of(len(names), 'class')} ({shown}): set "
            f"--config.recipe.classes={len(names)}."
        )
    if folder:
        raise UserError(
            f"config.recipe.classes={wanted}, but data.folder={str(folder)!r} has no classes: move the images of each "
            "class into its own sub-folder."
        )


def _check_styles(values: Mapping[str, Any]) -> None:
    """Compares a recipe's argument `styles`, if it has one, with the classes of the second source, `data.also`."""
    wanted = values["recipe"].get("styles")
    names = data.check(second(values["data"])) if wanted and values["data"]["also"] else ()
    number = isinstance(wanted, int) or names == class_names(len(names))
    if names and len(class_names(wanted)) == len(names) and (number or tuple(wanted) == names):
        return
    if names:
        raise UserError(
            f"config.recipe.styles={wanted!r}, but the classes of data.also are {names!r}, in this order: set "
            f'"--config.recipe.styles={names!r}".'
        )


def as_dict(config: ConfigDict | Mapping) -> dict[str, Any]:
    """Returns the config as plain dicts; empty placeholders become None."""
    return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def difference(old: Mapping, new: Mapping) -> list[str]:
    """Lists the differences that a resumed run may not have, such as `data.batch: 64 in the run, 32 asked for`.

    A missing key has the default that building a run fills in, and names of classes equal their number.
    """
    flat_old, flat_new = (
        _flatten(json.loads(json.dumps(_complete(side) if side["system"] == new["system"] else side)))
        for side in (old, new)
    )
    classes = [flat.get("recipe.classes") for flat in (flat_old, flat_new)]
    if int in map(type, classes) and count_classes(classes[0]) == count_classes(classes[1]):
        flat_old["recipe.classes"] = flat_new["recipe.classes"]
    return [
        f"{key}: {flat_old.get(key, 'absent')!r} in the run, {flat_new.get(key, 'absent')!r} asked for"
        for key in sorted(flat_old.keys() | flat_new.keys())
        if flat_old.get(key, "absent") != flat_new.get(key, "absent")
        and key.split(".")[0] not in UNCOMPARED
        and key != f"recipe.{LABEL_NAMES}"
    ]


def _complete(values: Mapping[str, Any]) -> dict[str, Any]:
    """Fills in the defaults of missing keys where building does; other dicts, such as optimisers, are taken whole."""
    usual = _defaults(values["system"])
    recipe = {**usual["recipe"], **values["recipe"]}
    for name, parameter in recipe_parameters(values["system"]).items():
        if dataclasses.is_dataclass(parameter.default):
            recipe[name] = {**usual["recipe"][name], **recipe[name]}
    return {**usual, **values, "recipe": recipe, "data": data.complete(values.get("data", {}))}


def _defaults(system: str) -> dict[str, Any]:
    """Returns the complete config of a system with every key at its default; required keys are left out."""
    given = {name: parameter.default for name, parameter in recipe_parameters(system).items()}
    recipe = {name: value for name, value in given.items() if value is not inspect.Parameter.empty}
    groups = {name: dataclasses.asdict(value) for name, value in recipe.items() if dataclasses.is_dataclass(value)}
    return {**DEFAULTS, "system": system, "recipe": recipe | groups}


def list_configs() -> list[Path]:
    """Returns the files in configs/ here, or else those that come with the package."""
    return sorted(Path("configs").glob("*.py")) or sorted(SHIPPED.glob("*.py"))


def find_file(path: str) -> str:
    """Returns the path of a config as it exists, with its variant.

    `vae_digits` is configs/vae_digits.py, here or, if there is no such file, among those that come with the package.
    """
    file, colon, name = str(path).partition(":")
    shipped = SHIPPED / f"{Path(file).name.removesuffix('.py')}.py"
    short = file in (shipped.name, shipped.stem, f"configs/{shipped.name}")
    if not Path(file).is_file() and short and shipped.is_file():
        here = Path("configs") / shipped.name
        file = str(here if here.is_file() else shipped)
    return f"{file}{colon}{name}"


def bar_settings(config: ConfigDict | Mapping) -> dict[str, str]:
    """Returns a digest of each top-level setting that bars are set for; of `borrow`, what `rundir.name_sources` says.

    Keys at their defaults do not count, so that a new key with a default changes no digest. Names of classes count as
    their number, and a folder of data or the run of a judge by its name, wherever it lies.
    """
    values, usual = as_dict(config), _defaults(config["system"])
    # A run of before a key existed has it at its default.
    values |= {part: {**usual.get(part, {}), **values[part]} for part in ("data", "recipe")}
    values |= {"borrow": name_sources(values["borrow"], recipe_parameters(values["system"]))}
    values |= {"data": name_folders(values["data"]), "judge": name_judge(values.get("judge", ""))}
    if values["recipe"].get("classes") is not None:
        values["recipe"] = {**values["recipe"], "classes": count_classes(values["recipe"]["classes"])}
    flat, usual = (_flatten(json.loads(json.dumps(side, default=str))) for side in (values, usual))
    chosen = {key: flat.get(key, "absent") for key in flat.keys() | usual.keys()}
    known = {key: key.replace("data.also.", "data.") for key in chosen}  # a second source has the same defaults
    chosen = {key: value for key, value in chosen.items() if value != usual.get(known[key], "absent")}
    uncounted = [f"recipe.{LABEL_NAMES}", *(f"data.{name}" for name in DATA_LOADING)]
    chosen = {key: value for key, value in chosen.items() if known[key] not in uncounted}
    groups = {name: sorted((k, v) for k, v in chosen.items() if k.split(".")[0] == name) for name in BAR_SETTINGS}
    return {name: hashlib.sha256(json.dumps(group).encode()).hexdigest()[:8] for name, group in groups.items()}


def changed_settings(config: ConfigDict | Mapping) -> list[str]:
    """Lists the settings that differ from those a config's bars were set for; bars changed by a flag always hold."""
    then, now = as_dict(config).get("expect_for") or {}, bar_settings(config)
    if not config["expect"] or then.get("expect") != now["expect"]:
        return []
    return [name for name in now if then.get(name) != now[name]]


def load(path: str) -> ConfigDict:
    """Loads a config, or a variant of it, by a path as `find_file` takes it."""
    file, _, name = find_file(path).partition(":")
    if not Path(file).is_file():
        raise UserError(f"--config={path}: there is no file {file!r}. {suggest(file, map(str, list_configs()))}")
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
    """Checks keyword arguments against a recipe's signature; lists become tuples."""
    arguments = arguments_of(find_system(system).recipe, without=network_arguments(system))
    checked = match(values, arguments, "config.recipe")
    for name in checked:
        if name.endswith("optimiser") and checked[name] is not None:
            try:
                optim.build(checked[name])
            except UserError as error:
                raise UserError(f"config.recipe.{name}: {error}") from None
    return checked


def _groups(defaults: Mapping[str, Any], values: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the arguments whose default is a dataclass as dicts of all fields, overridden by `values`."""
    groups = {name: dataclasses.asdict(value) for name, value in defaults.items() if dataclasses.is_dataclass(value)}
    for name in groups.keys() & values.keys():
        _check_names(values[name], groups[name], f"config.recipe.{name}")
        groups[name] |= values[name]
    return groups


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

    hints = {"recipe": {name: parameter.annotation for name, parameter in parameters.items()}}
    return {
        group: {key: typed(key, value, hints.get(group, {})) for key, value in inner.items()}
        if isinstance(inner, Mapping)
        else inner
        for group, inner in values.items()
    }


def _either(value: Any, annotation: Any) -> Any:
    """Allows a flag to set any type of a field's union, such as `float | tuple[float, float]`."""
    union = typing.get_origin(annotation) in (typing.Union, types.UnionType)
    return config_dict.FieldReference(value, field_type=object) if union else value


def _flatten(tree: Any, prefix: str = "") -> dict[str, Any]:
    if not isinstance(tree, Mapping) or (prefix and not tree):
        return {prefix: tree}
    flat = {}
    for key, value in tree.items():
        flat |= _flatten(value, f"{prefix}.{key}" if prefix else str(key))
    return flat
