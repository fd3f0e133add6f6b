"""The mesh of devices, and how state and batches are distributed over it.

Batches are split over both axes. Parameters are replicated over `data`; over `fsdp` each large array is split along its
longest divisible axis. Everything runs under `jax.jit` on global arrays, so a mean over the batch (batch normalisation
included) is over all devices, and one device computes the same numbers as eight.
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import PyTree

from cvjax.errors import UserError, number_of

AXES = ("data", "fsdp")
LARGE = 2**14  # minimum elements of an array that is split over fsdp


def join_hosts(coordinator: str, count: int | None = None, index: int | None = None) -> None:
    """Joins the processes of a multi-host run; call it before anything touches a device.

    `coordinator` is HOST:PORT of process 0, or "auto" on clusters that JAX can query (TPU pods, Slurm); `index` is the
    number of this process.
    """
    jax.config.update("jax_cpu_collectives_implementation", "gloo")  # for processes without accelerators
    known = dict(coordinator_address=coordinator, num_processes=count, process_id=index)
    if coordinator == "auto":
        known = {}
    elif count is None or index is None or not 0 <= index < count:
        raise UserError(
            f"--coordinator={coordinator}: needs --process_count=N, 0 <= --process_index < N; got {count}, {index}."
        )
    try:
        jax.distributed.initialize(**known)
    except (ValueError, RuntimeError) as error:
        raise UserError(f"--coordinator={coordinator}: the processes cannot connect: {error}") from error


def any_process(flag: bool) -> bool:
    """Returns whether `flag` is set on any process. All processes must call it at the same point."""
    if jax.process_count() == 1:
        return flag
    from jax.experimental import multihost_utils

    return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def make_mesh(shape: Mapping[str, int], devices: list[jax.Device] | None = None) -> Mesh:
    """Makes a mesh with the axes "data" and "fsdp", by default of all devices.

    One number of `shape` may be -1, for all remaining devices.
    """
    devices = jax.devices() if devices is None else devices
    sizes = [shape.get(axis, 1) for axis in AXES]
    if set(shape) - set(AXES) or any(size < 1 and size != -1 for size in sizes) or sizes.count(-1) > 1:
        raise UserError(f"config.mesh={dict(shape)}: expected positive sizes for {AXES}, at most one of them -1.")
    rest = int(np.prod([size for size in sizes if size != -1]))
    sizes = [len(devices) // rest if size == -1 else size for size in sizes]
    if int(np.prod(sizes)) != len(devices):
        raise UserError(f"config.mesh={dict(shape)} does not match the {number_of(len(devices), 'device')}.")
    return Mesh(np.asarray(devices).reshape(sizes), AXES)


def state_sharding(mesh: Mesh, state: PyTree) -> PyTree:
    """Returns the shardings of a state: large arrays split over `fsdp` along their longest divisible axis."""

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
    """Returns a batch as global arrays, split over all devices, from this process's rows."""
    sharding = batch_sharding(mesh)
    return {name: jax.make_array_from_process_local_data(sharding, value) for name, value in batch.items()}


def make_step_input(batch: Mapping[str, np.ndarray], mesh: Mesh) -> Mapping[str, np.ndarray | jax.Array]:
    """Returns a batch in the form that a function compiled for `batch_sharding` takes.

    In a single process, the compiled function places NumPy arrays itself, ten times as fast as `place_batch`.
    """
    return batch if jax.process_count() == 1 else place_batch(batch, mesh)


def to_host(tree: PyTree) -> PyTree:
    """Returns a tree of global arrays as NumPy, complete on every process. All processes must call it."""

    def fetch(leaf: Any) -> np.ndarray:
        if isinstance(leaf, jax.Array) and not (leaf.is_fully_addressable or leaf.is_fully_replicated):
            from jax.experimental import multihost_utils

            return np.asarray(multihost_utils.process_allgather(leaf, tiled=True))
        return np.asarray(leaf)

    return jax.tree.map(fetch, tree)
