"""Where things live: the mesh of devices, and how state and batches are laid over it.

A batch is split over both axes. Parameters are replicated over `data`; over `fsdp` each large array is split along
its longest divisible axis. Everything runs under `jax.jit` on global arrays, so a mean over the batch (batch
normalisation included) is the mean over all devices, and one device computes the same numbers as eight.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from cvjax.errors import UserError

AXES = ("data", "fsdp")
LARGE = 2**14  # elements from which an array is worth splitting over fsdp


def join_hosts(coordinator: str, count: int | None = None, index: int | None = None) -> None:
    """Joins the processes of a run on several hosts; to be called before anything touches a device.

    Args:
      coordinator: address HOST:PORT of process 0, or "auto" where the cluster tells (TPU pods, Slurm).
      count: number of processes.
      index: which one this is, from 0.

    Raises:
      UserError: the processes do not find one another.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # for processes without accelerators
    known = dict(coordinator_address=coordinator, num_processes=count, process_id=index)
    if coordinator == "auto":
        known = {}
    elif count is None or index is None or not 0 <= index < count:
        raise UserError(
            f"--coordinator={coordinator}: wants --process_count=N, 0 <= --process_index < N; given: {count}, {index}."
        )
    try:
        jax.distributed.initialize(**known)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--coordinator={coordinator}: the processes do not find one another: {error}") from error


def any_process(flag: bool) -> bool:
    """Tells whether a flag is up on any process. All processes have to call it at the same point.

    Args:
      flag: this process's.
    """
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def make_mesh(shape: Mapping[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """Arranges devices in a mesh.

    Args:
      shape: devices along `data` and `fsdp`; one of them may be -1, all that are left.
      devices: the devices, all by default.

    Returns:
      A mesh with the axes "data" and "fsdp".

    Raises:
      UserError: the devices cannot be arranged so.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [shape.get(axis, 1) for axis in AXES]
    if set(shape) - set(AXES) or any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"config.mesh={dict(shape)}: expected positive sizes for {AXES}, one of them -1 at most.")
    rest = int(np.prod([size for size in sizes if size != -1]))
    sizes = [len(devices) // rest if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise UserError(f"config.mesh={dict(shape)} does not divide the {len(devices)} devices there are.")
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def state_sharding(mesh: Mesh, state: PyTree) -> PyTree:
    """Chooses the sharding of each array of a state.

    Args:
      mesh: the mesh.
      state: arrays or their shapes (`jax.eval_shape`).

    Returns:
      A tree of `NamedSharding`: large arrays split over `fsdp` along their longest divisible axis, others replicated.
    """

    def of(leaf: Any) -> NamedSharding:
        size = mesh.shape["fsdp"]
        axes = [axis for axis in range(len(leaf.shape)) if leaf.shape[axis] % size == 0]
        spec = [None] * len(leaf.shape)
        if size > 1 and axes and np.prod(leaf.shape) >= LARGE:
            spec[max(axes, key=lambda axis: leaf.shape[axis])] = "fsdp"
        return NamedSharding(mesh, PartitionSpec(*spec))

    return jax.tree.map(of, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Returns the sharding of a batch: its first axis split over all devices."""
    return NamedSharding(mesh, PartitionSpec(AXES))


def place_batch(batch: Mapping[str, np.ndarray], mesh: Mesh) -> dict[str, jax.Array]:
    """Puts a batch on the devices.

    Args:
      batch: this process's rows of the global batch.
      mesh: the mesh.

    Returns:
      Global arrays, split along their first axis over all devices.
    """
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def hand_over(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Mapping[str, np.ndarray | jax.Array]:
    """Makes a batch an argument of a function that was compiled for `batch_sharding`.

    Args:
      batch: this process's rows of the global batch.
      mesh: the mesh.

    Returns:
      The batch as it is where the compiled function places it itself, which takes a tenth of the time of
      `place_batch`; placed where it has other processes' rows too.
    """
    return batch if jax.process_count() == 1 else place_batch(batch, mesh)


def to_host(tree: PyTree) -> PyTree:
    """Fetches arrays as NumPy, whole on every process. All processes have to call it.

    Args:
      tree: global arrays.

    Returns:
      The same tree of NumPy arrays.
    """

    def fetch(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            from jax.experimental import multihost_utils

            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)
