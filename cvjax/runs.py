"""A run's folder: created, described in config.json, and loaded after training."""

import os
import platform
import shutil
import subprocess
import tempfile
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from cvjax import borrow, checkpoint, sharding
from cvjax import config as experiments
from cvjax.compiled import describe_state
from cvjax.core import Recipe, State
from cvjax.data.sources import check_utf8
from cvjax.errors import UserError
from cvjax.rundir import read_config
from cvjax.weights import hub


def make_folder(folder: Path, setting: str) -> None:
    """Creates a folder and checks that it is writable; the error message names the flag `setting`."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        there = next(path for path in (folder, *folder.absolute().parents) if os.path.exists(path))
        reason = f"{there} is a file" if os.path.isfile(there) else error.strerror
        raise UserError(f"{setting}={folder} cannot be written to: {reason}. Choose another folder.") from None


def open_workdir(config: ConfigDict, workdir: Path) -> Path:
    """Creates a run's folder; if it holds a run with a different config, raises a UserError with the differences."""
    check_utf8(workdir.absolute(), "--workdir", "Orbax, which writes the checkpoints,")
    make_folder(workdir, "--workdir")
    if (workdir / "config.json").exists():
        written = read_config(workdir)
        differing = experiments.difference(written["config"], experiments.as_dict(config))
        other_version = written.get("commit") and any("'absent'" in line for line in differing)
        begun = f" Commit {written['commit'][:12]}, which began the run, can go on with it." if other_version else ""
        if differing and checkpoint.exists(workdir / "checkpoints"):
            raise UserError(
                f"{workdir} holds a run with a different config:\n  " + "\n  ".join(differing) + "\n"
                f"Give another --workdir, or the same config; only {', '.join(experiments.FREE_ON_RESUME)} may "
                f"change.{begun}"
            )
    return workdir


def facts(config: ConfigDict, mesh: jax.sharding.Mesh, batch: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """Returns what is needed to repeat a run, for config.json; `batch` has this process's rows.

    That is seed, commit, versions, devices, processes, mesh, and the shapes and dtypes of the global batch.
    """
    packages = ("cvjax", "jax", "flax", "optax", "orbax-checkpoint", "numpy")
    return {
        "seed": config.seed,
        "commit": find_commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in packages}},
        "devices": [str(device.device_kind) for device in mesh.devices.flat],
        "processes": jax.process_count(),
        "mesh": dict(mesh.shape),
        "batch": {k: ([v.shape[0] * jax.process_count(), *v.shape[1:]], str(v.dtype)) for k, v in batch.items()},
    }


def find_commit() -> str:
    """Returns the commit of the repository that this file is in; "" for an installed package or without git."""
    root = Path(__file__).parent.parent
    if not (root / ".git").exists() or shutil.which("git") is None:
        return ""
    command = ["git", "-C", str(root), "rev-parse", "HEAD"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


def networks(config: ConfigDict, workdir: Path) -> dict[str, dict[str, Any]]:
    """Returns {argument: description} of the networks that a system takes from other runs, for config.json."""
    if checkpoint.exists(workdir / "checkpoints") and (workdir / "config.json").exists():
        return read_config(workdir).get("networks", {})
    return borrow.describe_networks(experiments.as_dict(config))


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "not installed"


def load(run: str | Path, step: int | None = None) -> tuple[dict[str, Any], Recipe, State]:
    """Returns (contents of config.json, recipe, state on the first device) of a run, by default at its latest step."""
    run = Path(run)
    description = read_config(run)
    if not {"system", "recipe"} <= description["config"].keys() or "batch" not in description:
        raise UserError(f"{run} is not the folder of a run: its config.json was not written by a run.")
    if hub.is_published(run):
        raise UserError(
            f"{run} is a folder for the hub: it has networks and no checkpoint of a run. A run takes them by "
            f"--config.borrow.NETWORK={run}/NETWORK."
        )
    if not checkpoint.exists(run / "checkpoints"):
        raise UserError(f"{run} has no checkpoint yet; train.py with its config and --workdir={run} continues it.")
    recipe = experiments.build(description["config"], borrow.make_networks(description.get("networks", {})))
    mesh = sharding.make_mesh({"data": 1}, jax.local_devices()[:1])
    wanted = describe_state(recipe, mesh, description["batch"])
    return description, recipe, checkpoint.read_state(run / "checkpoints", wanted, step)
