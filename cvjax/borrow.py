"""Networks of other runs and of files, `config.borrow`: found, described, and put into the first state of a run.

    borrow={"resnet": "runs/resnet_digits/classifier/resnet"}     # its average, where it has one
    borrow={"resnet": "runs/resnet_digits/classifier@latest"}     # the network after the last step
    borrow={"judge": "inception.safetensors"}                     # a file of weights

A whole network is borrowed, parameters and batch statistics. Only the first state of a run borrows: afterwards the
network is in the run's own checkpoints, and what is known of it in the run's config.json, so that the source may go.
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
from cvjax.weights import networks as files

LATEST = "@latest"


@dataclasses.dataclass(frozen=True)
class Source:
    """A network of a run, as `config.borrow` names it.

    Attributes:
      run: the run's folder.
      network: the network's name in the run.
      path: names of modules inside the network, () for all of it.
      averaged: take its moving average where it has one.
    """

    run: Path
    network: str
    path: tuple[str, ...] = ()
    averaged: bool = True


def parse(name: str, source: str) -> Source:
    """Finds the run that a source names.

    Args:
      name: the key of `config.borrow`, for messages.
      source: "RUN/NETWORK" or "RUN/NETWORK/MODULE", with "@latest" or without.

    Raises:
      UserError: no folder on its path is a run's, or it names no network.
    """
    text = source.removesuffix(LATEST)
    whole = Path(text).expanduser()
    run = next((folder for folder in (whole, *whole.parents) if (folder / "config.json").is_file()), None)
    if run is None:
        hint = f"configs/{whole.parent.name}.py"
        train = f" Train it first: python train.py --config={hint}." if Path(hint).is_file() else ""
        raise UserError(
            f"config.borrow.{name}={source!r}: {whole.parent} is not the folder of a run; expected RUN/NETWORK or a "
            f"file of weights ({', '.join(files.SUFFIXES)}).{train}"
        )
    network, *path = whole.relative_to(run).parts or ("",)
    if not network:
        names = ", ".join(describe_run(run)[1].networks)
        raise UserError(f"config.borrow.{name}={source!r}: which network of the run? Add one of: {names}.")
    return Source(run, network, tuple(path), averaged=not source.endswith(LATEST))


def describe_run(run: Path) -> tuple[dict[str, Any], Recipe]:
    """Returns what a run's config.json says, and its recipe."""
    description = read_config(run)
    return description, experiments.build(description["config"], make_networks(description.get("networks", {})))


def describe_networks(config: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """Describes the networks that a system takes as arguments, for config.json.

    Args:
      config: the experiment, as plain dicts.

    Returns:
      {argument: what `make_networks` needs to build the module again}.

    Raises:
      UserError: an argument that `config.borrow` does not give, or a source without such a network.
    """
    described = {}
    for name in experiments.network_arguments(config["system"]):
        source = config["borrow"].get(name)
        if not source:
            raise UserError(
                f"config.borrow.{name} is missing: {config['system']} uses a network that another run trained. Give "
                f"--config.borrow.{name}=RUN/NETWORK."
            )
        described[name] = describe_network(name, source)
    return described


def describe_network(name: str, source: str) -> dict[str, Any]:
    """Describes a network of a run.

    Args:
      name: the key of `config.borrow`, for messages.
      source: "RUN/NETWORK".

    Returns:
      What `make_networks` needs to build the module again: the run's system and recipe, and the networks that it was
      given itself; the network's name, the shape of its images, its classes.

    Raises:
      UserError: there is no such network.
    """
    found = parse(name, source)
    if found.path:
        raise UserError(f"config.borrow.{name}={source!r}: a whole network is wanted here, not a module of one.")
    description, recipe = describe_run(found.run)
    if found.network not in recipe.networks:
        raise UserError(
            f"config.borrow.{name}={source!r}: {found.run} has no network {found.network!r}. "
            f"{suggest(found.network, recipe.networks)}"
        )
    held = description["config"]
    about = {
        "config": {"system": held["system"], "recipe": held["recipe"]},
        "networks": description.get("networks", {}),
        "network": found.network,
        "shape": description["batch"]["image"][0][1:],
        "classes": class_names(held["recipe"].get("classes") or ()),
    }
    return json.loads(json.dumps(about))


def make_networks(described: Mapping[str, Mapping[str, Any]]) -> dict[str, Network]:
    """Builds the modules that `describe_networks` described."""
    made = {}
    for name, about in described.items():
        recipe = experiments.build(about["config"], make_networks(about["networks"]))
        made[name] = Network(recipe.networks[about["network"]], tuple(about["shape"]), tuple(about["classes"]))
    return made


def read(config: Mapping[str, Any], recipe: Recipe, wanted: State) -> dict[str, Variables]:
    """Reads the networks that a run is to start from.

    Args:
      config: the experiment, as plain dicts.
      recipe: the run's recipe.
      wanted: shapes and shardings of the run's first state.

    Returns:
      {network: variables}, placed as in `wanted`.

    Raises:
      UserError: a network that is not there, or has other parameters; or a frozen network that nothing is borrowed for.
    """
    sources = {name: source for name, source in config["borrow"].items() if source}
    known = wanted.params.keys() | wanted.frozen.keys()
    for name in sources:
        if name not in known:
            raise UserError(f"config.borrow.{name}: {config['system']} has no network {name!r}. {suggest(name, known)}")
    for name in wanted.frozen:
        if name not in sources:
            raise UserError(
                f"config.borrow.{name} is missing: {config['system']} uses this network and does not train it. Give "
                f"--config.borrow.{name}=RUN/NETWORK."
            )
    return {name: _read(name, source, recipe, variables(wanted, name, False)) for name, source in sources.items()}


def lend(state: State, borrowed: Mapping[str, Variables]) -> State:
    """Puts borrowed networks into a state, averages included.

    Args:
      state: the first state of a run.
      borrowed: {network: variables}.

    Returns:
      The state.
    """
    for name, held in borrowed.items():
        if name in state.frozen:
            state = state.replace(frozen={**state.frozen, name: held})
            continue
        state = state.replace(params={**state.params, name: held["params"]})
        if name in state.stats:
            state = state.replace(stats={**state.stats, name: held["batch_stats"]})
        if name in state.average:
            state = state.replace(average={**state.average, name: jax.tree.map(jnp.copy, held)})
    return state


def _read(name: str, source: str, recipe: Recipe, wanted: Variables) -> Variables:
    where = f"config.borrow.{name}={source!r}"
    if Path(source).suffix.lower() in files.SUFFIXES:
        found = files.load(source, recipe.networks[name], wanted)
    else:
        found = _read_run(where, parse(name, source))
    _compare(where, found, wanted)
    return jax.tree.map(lambda new, old: jax.device_put(jnp.asarray(new, old.dtype), old.sharding), found, wanted)


def _read_run(where: str, source: Source) -> PyTree:
    tree = checkpoint.read_tree(source.run / "checkpoints")
    networks = tree["params"].keys() | tree["frozen"].keys()
    if source.network not in networks:
        raise UserError(f"{where}: {source.run} has no network {source.network!r}. {suggest(source.network, networks)}")
    found = variables(as_state(tree), source.network, source.averaged)
    for module in source.path:
        inside = {kind: held[module] for kind, held in found.items() if module in held}
        if "params" not in inside:
            raise UserError(f"{where}: there is no module {module!r}. {suggest(module, found['params'])}")
        found = inside
    return found


def as_state(tree: Mapping[str, Any]) -> State:
    """Makes a state of what `checkpoint.read_tree` reads, for `variables`; it has no optimisers."""
    return State(**{**tree, "opt": {}})


def _compare(where: str, found: PyTree, wanted: PyTree) -> None:
    """Lists the arrays whose names or shapes differ."""
    there, here = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (found, wanted)
    )
    differing = [
        f"{key}: {there.get(key, 'absent')} there, {here.get(key, 'absent')} here"
        for key in sorted(there | here)
        if there.get(key) != here.get(key)
    ]
    if differing:
        more = f"\n  and {len(differing) - 10} more" if len(differing) > 10 else ""
        raise UserError(f"{where} is another network than this one:\n  " + "\n  ".join(differing[:10]) + more)
