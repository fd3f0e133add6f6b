"""Checkpoints: asynchronous, atomic, verified. The only module that uses Orbax."""

import contextlib
import functools
import json
import logging
import math
import shutil
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils
from jaxtyping import PyTree
from orbax.checkpoint.experimental import v1 as ocp

from cvjax.core import State
from cvjax.data.sources import check_utf8
from cvjax.errors import UserError
from cvjax.rundir import disk_is_full, write_atomically
from cvjax.upgrade import upgrade_state

# Tensorstore verifies its indices but not the arrays: a flipped byte in a weight would go unnoticed.
CHECKSUMS = "checksums.json"

# Orbax also raises what it logs with a traceback, so the log would repeat our message.
for _logger in ("absl", "asyncio"):
    logging.getLogger(_logger).addFilter(lambda record: not record.exc_info)


def _ignore_late_writes() -> None:
    """Silences errors of tensorstore threads whose event loop a failed write has closed."""
    hook = sys.unraisablehook

    def unraisablehook(unraisable):
        if "Event loop is closed" not in str(unraisable.exc_value):
            hook(unraisable)

    sys.unraisablehook = unraisablehook
    warnings.filterwarnings("ignore", "coroutine '.*serialize.*' was never awaited", RuntimeWarning)


_ignore_late_writes()


class Checkpoints:
    """The checkpoints of one run: the latest few, and the best by a figure.

    A checkpoint appears under its step's number once it is complete; its checksums follow. A run that dies while
    writing one keeps the one before.
    """

    def __init__(
        self,
        folder: str | Path,
        *,
        keep: int = 2,
        best: tuple[str, str] | None = None,
        say: Callable[[str], None] = print,
    ):
        """Opens a folder for training, creating it if necessary; raises a UserError if all its checkpoints are broken.

        Incomplete checkpoints are deleted, so nobody else may be writing. Those that fail their checksums are renamed
        to `<step>.broken`, so that the run continues from the one before; `say` prints a line about each. The latest
        `keep` are kept, and the best by `best`, (figure, relation) such as ("fid", "<=").
        """
        self._folder, self._say = Path(folder).absolute(), say
        if jax.process_index() == 0:
            _set_aside(
                self._folder,
                {step: fault for step in _steps(self._folder) if (fault := _fault(self._folder / f"{step}"))},
                say,
            )
        multihost_utils.sync_global_devices("the broken checkpoints are moved aside")
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
        self._orbax = _open(
            self._folder,
            save_decision_policy=ocp.training.save_decision_policies.FixedIntervalPolicy(1),
            preservation_policy=ocp.training.preservation_policies.AnyPreservationPolicy(policies),
            cleanup_tmp_directories=True,
        )
        self._sealer, self._sealing = ThreadPoolExecutor(1, "checksums"), None

    @property
    def steps(self) -> list[int]:
        """The steps that have a checkpoint, ascending."""
        return [checkpoint.step for checkpoint in self._orbax.checkpoints]

    @property
    def latest(self) -> int | None:
        """The newest step that has a checkpoint."""
        return max(self.steps, default=None)

    def save(self, step: int, state: State, data: Mapping[str, Any], figures: Mapping[str, float] | None = None):
        """Starts writing a checkpoint, unless the step has one. The state may be donated once this returns.

        `data` is the training iterator's state, as JSON; `figures`, of an evaluation, tell which checkpoint is best.
        Raises a UserError if this checkpoint, or the one before, cannot be written.
        """
        self.wait()
        if step in self.steps:
            return
        finite = {name: value for name, value in (figures or {}).items() if math.isfinite(value)}
        tree = {"state": state, "data": dict(data)}
        with _explain_write_errors(self._folder, step):
            response = self._orbax.save_checkpointables_async(step, tree, metrics=finite or None)
        self._sealing = step, self._sealer.submit(_seal, self._folder / f"{step}", response.result)

    def restore(self, state: PyTree, step: int | None = None) -> tuple[State, dict[str, Any]]:
        """Returns (state, the training iterator's state) of a checkpoint, by default the latest.

        `state` has the wanted `jax.ShapeDtypeStruct`s with shardings; the mesh may differ from the writer's. If the
        latest has no checksums yet because the run died, and cannot be read, it is treated as broken.
        """
        latest = self.latest if step is None else None
        if latest is None or (self._folder / f"{latest}" / CHECKSUMS).exists() or len(self.steps) == 1:
            return _restore(self._orbax, state, step)
        try:
            return _restore(self._orbax, state, latest)
        except UserError as error:
            restored = _restore(self._orbax, state, self.steps[-2])
            if jax.process_index() == 0:
                _set_aside(self._folder, {latest: str(error)}, self._say)
            multihost_utils.sync_global_devices("the unreadable checkpoint is moved aside")
            self._orbax.reload()
            return restored

    def wait(self) -> None:
        """Waits until the checkpoint being written is complete; raises a UserError if it cannot be written."""
        if self._sealing:
            (step, sealing), self._sealing = self._sealing, None
            with _explain_write_errors(self._folder, step):
                sealing.result()

    def close(self) -> None:
        """Finishes writing, as `wait`, and releases the folder."""
        try:
            self.wait()
        finally:
            self._sealer.shutdown()
            with contextlib.suppress(Exception):  # `wait` has raised what went wrong
                self._orbax.close()


def exists(folder: str | Path) -> bool:
    """Returns whether a folder, which may be absent, holds a complete checkpoint."""
    return Path(folder).is_dir() and any(path.name.isdigit() for path in Path(folder).iterdir())


def read_state(folder: str | Path, state: PyTree, step: int | None = None) -> State:
    """Returns the state of a checkpoint, also of a run in progress; arguments as in `Checkpoints.restore`."""
    with _reader(folder, step) as checkpointer:
        return _restore(checkpointer, state, step)[0]


def read_tree(folder: str | Path, step: int | None = None) -> dict[str, Any]:
    """Returns a checkpoint's `State` (default: the latest), of any system, as nested dicts in the present layout."""
    with _reader(folder, step) as checkpointer:
        step = checkpointer.latest.step if step is None and checkpointer.latest else step
        if step is None:
            raise UserError(f"{folder} holds no checkpoint.")
        return _load_tree(checkpointer, step)


def _load_tree(checkpointer: ocp.training.Checkpointer, step: int) -> dict[str, Any]:
    with warnings.catch_warnings():  # the writer's sharding does not matter here
        warnings.simplefilter("ignore", UserWarning)
        return upgrade_state(checkpointer.load_checkpointables(step, {"state": None})["state"])


def _steps(folder: Path) -> list[int]:
    """Returns the steps that have a checkpoint, ascending, without opening any."""
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdigit()) if folder.is_dir() else []


def _seal(path: Path, finish: Callable[[], bool]) -> None:
    """Waits for a checkpoint to be complete and writes its checksums; runs in a thread beside training."""
    if finish() and jax.process_index() == 0:
        write_atomically(
            path / CHECKSUMS, json.dumps({str(file.relative_to(path)): _checksum(file) for file in _files(path)})
        )


def _files(path: Path) -> list[Path]:
    return sorted(file for file in path.rglob("*") if file.is_file() and file.name != CHECKSUMS)


def _checksum(file: Path) -> list[int]:
    """Returns [size in bytes, CRC-32]."""
    size, crc = 0, 0
    with open(file, "rb") as opened:
        while piece := opened.read(1 << 22):
            size, crc = size + len(piece), zlib.crc32(piece, crc)
    return [size, crc]


def _fault(path: Path) -> str:
    """Describes what is wrong with a checkpoint's files, or returns an empty string; one without checksums passes."""
    try:
        written = json.loads((path / CHECKSUMS).read_bytes())
        for name, (size, crc) in written.items():
            here = _checksum(path / name)
            if here != [size, crc]:
                return f"{name} has " + (
                    f"{here[0]} of {size} bytes" if here[0] != size else "different bytes than written"
                )
    except (OSError, ValueError, AttributeError, TypeError) as error:
        unsealed = isinstance(error, FileNotFoundError) and not (path / CHECKSUMS).exists()
        return "" if unsealed else f"{getattr(error, 'filename', None) or CHECKSUMS} cannot be read"
    return ""


def _set_aside(folder: Path, faults: Mapping[int, str], say: Callable[[str], None]) -> None:
    """Renames broken checkpoints to <step>.broken and reports them, provided that an intact one is left."""
    for step, fault in sorted(faults.items(), reverse=True):
        sound = [s for s in _steps(folder) if s not in faults]
        if not sound:
            raise UserError(
                f"all checkpoints in {folder} are broken; step {step}: {fault}. Give another --workdir, or delete this "
                "folder to start again."
            )
        aside = folder / f"{step}.broken"
        shutil.rmtree(aside, ignore_errors=True)
        (folder / f"{step}").rename(aside)
        say(f"checkpoint {step} is broken ({fault}) and was moved to {aside}; continuing from step {max(sound)}")


@contextlib.contextmanager
def _explain_write_errors(folder: Path, step: int) -> Iterator[None]:
    """Turns an error while writing a checkpoint into a UserError."""
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        full = disk_is_full(error)
        reason = "the disk is full" if full else str(error).split("\n")[0][:300]
        before = [s for s in _steps(folder) if s != step]
        kept = f"The checkpoint of step {before[-1]} is intact" if before else "There is no other checkpoint"
        raise UserError(
            f"the checkpoint of step {step} cannot be written to {folder}: {reason}. {kept}. "
            f"{'Make room there; the' if full else 'The'} same command then resumes the run."
        ) from error


def _reader(folder: str | Path, step: int | None = None) -> ocp.training.Checkpointer:
    folder = Path(folder)
    if not folder.is_dir():
        raise UserError(f"there is no checkpoint folder {folder}.")
    steps = _steps(folder)
    step = max(steps, default=None) if step is None else step
    if step in steps and (fault := _fault(folder / f"{step}")) and (folder / f"{step}").exists():
        sound = max((s for s in steps if s != step and not _fault(folder / f"{s}")), default=None)
        advice = "None here is intact." if sound is None else f"Step {sound} is intact (apply: --step={sound})."
        raise UserError(f"checkpoint {step} in {folder} is broken: {fault}. {advice}")
    return _open(Path(folder).absolute())


def _open(folder: Path, **options: Any) -> ocp.training.Checkpointer:
    check_utf8(folder, "the folder of checkpoints", "Orbax, which reads them,")
    try:
        return ocp.training.Checkpointer(folder, **options)
    except ValueError as error:  # from figures, which Orbax reads on opening
        raise UserError(f"{folder} holds a broken checkpoint: {error}.") from error


def _restore(checkpointer: ocp.training.Checkpointer, state: PyTree, step: int | None) -> tuple[State, dict[str, Any]]:
    steps = [checkpoint.step for checkpoint in checkpointer.checkpoints]
    step = max(steps, default=None) if step is None else step
    if step not in steps:
        raise UserError(f"{checkpointer.directory} has no checkpoint {step}; it has {steps or 'none'}.")
    try:
        _check_dtypes(checkpointer.checkpointables_metadata(step).metadata["state"], state)
        restored = checkpointer.load_checkpointables(step, {"state": state, "data": None})
    except (ValueError, LookupError, TypeError, AttributeError) as error:
        try:  # it may be from an earlier version
            tree, data = _load_tree(checkpointer, step), checkpointer.load_checkpointables(step, {"data": None})["data"]
            return jax.tree.map_with_path(functools.partial(_place, tree), state), data
        except (ValueError, KeyError, LookupError, TypeError):
            raise UserError(f"checkpoint {step} in {checkpointer.directory} has a different state: {error}") from error
    return restored["state"], restored["data"]


def _check_dtypes(metadata: Any, state: PyTree) -> None:
    """Raises a ValueError if an array has another dtype, to which Orbax would cast it."""
    for path, wanted in jax.tree.leaves_with_path(state):
        if not jax.dtypes.issubdtype(wanted.dtype, jax.dtypes.prng_key):
            _check_dtype(path, _find(metadata, path).dtype, wanted.dtype)


def _check_dtype(path: tuple, found: np.dtype, wanted: np.dtype) -> None:
    if found != wanted:
        raise ValueError(f"{jax.tree_util.keystr(path)} is {found}, not {wanted}")


def _find(tree: Any, path: tuple) -> Any:
    """Finds an array by its path in nested dicts and lists."""
    for entry in path:
        key = next(getattr(entry, name) for name in ("key", "idx", "name") if hasattr(entry, name))
        tree = tree[key] if isinstance(tree, (list, tuple)) or key in tree else tree[str(key)]
    return tree


def _place(tree: Any, path: tuple, wanted: jax.ShapeDtypeStruct) -> jax.Array:
    """Finds an array by its path, and puts it on the devices."""
    found = _find(tree, path)
    if found.shape != wanted.shape:
        raise ValueError(f"{jax.tree_util.keystr(path)} is {found.shape}, not {wanted.shape}")
    _check_dtype(path, found.dtype, wanted.dtype)
    return jax.device_put(np.asarray(found), wanted.sharding)


def abstract(state: PyTree, shardings: PyTree) -> PyTree:
    """Returns the `jax.ShapeDtypeStruct`s of a state (arrays or shapes) with a tree of shardings."""
    return jax.tree.map(lambda leaf, s: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=s), state, shardings)
