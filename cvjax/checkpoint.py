"""Checkpoints of a run, asynchronous and atomic. The only file that knows Orbax."""

import math
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from jaxtyping import PyTree
from orbax.checkpoint.experimental import v1 as ocp

from cvjax.core import State
from cvjax.errors import UserError, suggest


class Checkpoints:
    """The checkpoints of one run: the latest few, and the best by a figure.

    A checkpoint appears under its step's number only when it is whole; a run that dies while writing one leaves the
    one before.
    """

    def __init__(self, folder: str | Path, *, keep: int = 2, best: tuple[str, str] | None = None):
        """Opens the checkpoints in a folder to train with, making it where there is none.

        Half-written checkpoints of a run that died are removed, so nobody else may be writing.

        Args:
          folder: where they are.
          keep: how many of the latest stay.
          best: (figure, relation) of the one that stays beside them, such as ("fid", "<=").
        """
        policies = [ocp.training.preservation_policies.LatestN(keep)]
        if best:
            name, relation = best
            sign = -1 if relation in ("<=", "<") else 1
            policies.append(
                ocp.training.preservation_policies.BestN(
                    get_metric_fn=lambda figures: sign * figures.get(name, -sign * math.inf),
                    n=1,
                    keep_checkpoints_without_metrics=False,
                )
            )
        self._orbax = ocp.training.Checkpointer(
            Path(folder).absolute(),
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    @property
    def latest(self) -> int | None:
        """The newest step that has a checkpoint."""
        return max(self.steps, default=None)

    def save(self, step: int, state: State, data: Mapping[str, Any], figures: Mapping[str, float] | None = None):
        """Starts writing a checkpoint; training may go on, and may donate the state, once this returns.

        Args:
          step: its number. One that exists already is left as it is.
          state: the state after that many steps.
          data: the training iterator's state, as JSON holds it.
          figures: evaluation figures at that step, by which the best is kept.
        """
        if step in self.steps:
            return
        finite = {name: value for name, value in (figures or {}).items() if math.isfinite(value)}
        self._orbax.save_checkpointables_async(step, {"state": state, "data": dict(data)}, metrics=finite or None)

    def restore(self, state: PyTree, step: int | None = None) -> tuple[State, dict[str, Any]]:
        """Reads a checkpoint.

        Args:
          state: the wanted tree of `jax.ShapeDtypeStruct` with shardings; another mesh than the writer's is fine.
          step: which one, the latest by default.

        Returns:
          (state, the training iterator's state).

        Raises:
          UserError: there is none, or it holds another state than the one asked for.
        """
        return _restore(self._orbax, state, step)

    def wait(self) -> None:
        """Waits until what is being written is whole on disk."""
        self._orbax.wait()

    def close(self) -> None:
        """Finishes writing and lets go of the folder."""
        self._orbax.close()


def exists(folder: str | Path) -> bool:
    """Tells whether a folder holds a whole checkpoint.

    Args:
      folder: a run's checkpoints; it need not exist.
    """
    return Path(folder).is_dir() and any(path.name.isdigit() for path in Path(folder).iterdir())


def read_state(folder: str | Path, state: PyTree, step: int | None = None) -> State:
    """Reads a checkpoint, of a run that may be training still.

    Args:
      folder: the run's checkpoints.
      state: as in `Checkpoints.restore`.
      step: which one, the latest by default.

    Returns:
      The state.

    Raises:
      UserError: as `Checkpoints.restore`.
    """
    with _reader(folder) as checkpointer:
        return _restore(checkpointer, state, step)[0]


def read_params(folder: str | Path, network: str, like: PyTree) -> PyTree:
    """Reads one network's parameters from a run of any system.

    Args:
      folder: the run's checkpoints; the latest is read.
      network: its name in `State.params`.
      like: the parameters that they will replace: same structure, shapes, types and shardings.

    Returns:
      The parameters.

    Raises:
      UserError: there is no such checkpoint or network, or its parameters have another structure or other shapes.
    """
    folder = Path(folder)
    with _reader(folder) as checkpointer:
        if checkpointer.latest is None:
            raise UserError(f"{folder} holds no checkpoint.")
        with warnings.catch_warnings():  # the writer's sharding is not needed: the parameters are placed anew below
            warnings.simplefilter("ignore", UserWarning)
            params = checkpointer.load_checkpointables(checkpointer.latest, {"state": None})["state"]["params"]
    if network not in params:
        raise UserError(f"the run in {folder.parent} has no network {network!r}. {suggest(network, params)}")
    there, here = (
        {jax.tree_util.keystr(path): leaf.shape for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (params[network], like)
    )
    differing = [
        f"{k}: {there.get(k)} there, {here.get(k)} here" for k in sorted(there | here) if there.get(k) != here.get(k)
    ]
    if differing:
        raise UserError(f"{network} in {folder.parent} has other parameters:\n  " + "\n  ".join(differing))
    return jax.tree.map(lambda new, old: jax.device_put(new.astype(old.dtype), old.sharding), params[network], like)


def _reader(folder: str | Path) -> ocp.training.Checkpointer:
    if not Path(folder).is_dir():
        raise UserError(f"there is no folder of checkpoints {folder}.")
    return ocp.training.Checkpointer(Path(folder).absolute())


def _restore(checkpointer: ocp.training.Checkpointer, state: PyTree, step: int | None) -> tuple[State, dict[str, Any]]:
    steps = [checkpoint.step for checkpoint in checkpointer.checkpoints]
    step = max(steps, default=None) if step is None else step
    if step not in steps:
        raise UserError(f"{checkpointer.directory} has no checkpoint {step}; it has {steps or 'none'}.")
    try:
        restored = checkpointer.load_checkpointables(step, {"state": state, "data": None})
    except (ValueError, KeyError) as error:
        raise UserError(f"checkpoint {step} in {checkpointer.directory} holds another state: {error}") from error
    return restored["state"], restored["data"]


def abstract(state: PyTree, shardings: PyTree) -> PyTree:
    """Describes a state to restore: shapes and types of one tree, shardings of another.

    Args:
      state: arrays or shapes.
      shardings: a tree of the same structure, of shardings.

    Returns:
      A tree of `jax.ShapeDtypeStruct`.
    """
    return jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, shardings)
