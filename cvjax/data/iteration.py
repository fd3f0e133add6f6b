"""Iterators over batches: gathered directly from memory, or made ahead of time by Grain."""

import os
import weakref
from collections.abc import Iterator
from typing import Any

import grain
import numpy as np
from absl import flags

from cvjax.data.batches import Batches
from cvjax.data.joint import Joint, join
from cvjax.errors import UserError

THREADS = 8  # most batches that a process makes at the same time


def iterate(
    batches: Batches | Joint, start: int = 0, workers: int = 0, stop: int | None = None
) -> Iterator[dict[str, np.ndarray]]:
    """Iterates over batches from number `start` to before `stop`, by default the end of the pass."""
    stop = len(batches) if stop is None else stop
    if isinstance(batches, Joint):
        return Joined(*(iterate(part, start, workers, stop) for part in (batches.first, batches.second)))
    if batches.arrays is not None:
        return map(batches.__getitem__, range(start, stop))
    return Prefetched(batches, start, stop, 0 if batches.in_memory else workers)


class Prefetched(Iterator):
    """Batches that Grain makes ahead of time, in threads or in processes."""

    def __init__(self, batches: Batches, start: int, stop: int, workers: int):
        threads = min(THREADS, os.cpu_count() or 1)
        # The elements are whole batches, so that distributing them to workers changes no batch.
        stream = grain.MapDataset.range(start, stop).map(batches.__getitem__)
        stream = stream.to_iter_dataset(grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads))
        if workers:
            if not flags.FLAGS.is_parsed():
                flags.FLAGS.mark_as_parsed()  # Grain hands its flags to workers; only absl.app.run parses them
            stream = stream.mp_prefetch(grain.MultiprocessingOptions(num_workers=workers, per_worker_buffer_size=2))
        self._workers = workers
        self._streams = [iter(stream)]
        self.close = weakref.finalize(self, _close, self._streams)  # at the latest when the interpreter ends

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch."""
        batch = next(self._streams[0])
        # Workers send arrays in shared memory, which has to be returned.
        return {key: np.array(value) for key, value in batch.items()} if self._workers else batch


def _close(streams: list[grain.DatasetIterator]) -> None:
    streams.pop().close()  # and destroyed while the modules that its destructor needs are still loaded


class Joined(Iterator):
    """Batches of two sources, each with its own stream."""

    def __init__(self, first: Iterator[dict[str, np.ndarray]], second: Iterator[dict[str, np.ndarray]]):
        self._first, self._second = first, second

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch."""
        return join(next(self._first), next(self._second))

    def close(self) -> None:
        """Stops both streams."""
        for stream in (self._first, self._second):
            if isinstance(stream, Prefetched):
                stream.close()


class TrainIterator(Iterator):
    """An endless iterator over this process's part of each training batch.

    Its state is the number of batches that it has returned, no matter how many were made ahead of time.
    """

    def __init__(self, batches: Batches | Joint, workers: int = 0):
        self._batches, self._workers = batches, workers
        self._step, self._stream = 0, None

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch."""
        if self._stream is None:
            self._stream = iterate(self._batches, self._step, self._workers)
        batch = next(self._stream)
        self._step += 1
        return batch

    def get_state(self) -> dict[str, Any]:
        """Returns its position as JSON-compatible values."""
        return {"step": self._step, **self._batches.order()}

    def set_state(self, state: dict[str, Any]) -> None:
        """Continues from a state that `get_state` returned.

        Raises a UserError if it belongs to other examples, another batch size or another seed.
        """
        order = self._batches.order()
        for key in sorted({*order, *state} - {"step"}):
            if state.get(key) != order.get(key):
                raise UserError(
                    f"the training data cannot be continued: {key} was {state.get(key)!r} when the run was stopped and "
                    f"is {order.get(key)!r} now"
                )
        if isinstance(self._stream, Prefetched | Joined):
            self._stream.close()
        self._step, self._stream = int(state["step"]), None
