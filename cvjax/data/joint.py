"""Two independent sources in one batch: the second one, `data.also`, has an order, a length and keys of its own."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvjax.data.batches import Batches, Example

PREFIX = "also_"  # of the second source's keys: also_image, also_label, also_valid
SECOND = 2  # its stream of random numbers, beside those of `cvjax.data.batches`


@dataclasses.dataclass(frozen=True)
class Joint:
    """A random-access sequence of batches of two sources. One pass is as long as the longer one's.

    Attributes:
      first: batches under their own keys.
      second: batches of the same size, whose keys get `PREFIX`.
    """

    first: Batches
    second: Batches

    def __len__(self) -> int:
        """Returns the number of steps."""
        return max(len(self.first), len(self.second))

    def __getitem__(self, step: int) -> Example:
        """Returns this process's part of a batch."""
        return join(self.first[step], self.second[step])

    def order(self) -> dict[str, Any]:
        """Returns what the order depends on."""
        return join(self.first.order(), self.second.order())


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Puts a second source's entries beside the first one's.

    Args:
      first: entries that keep their keys.
      second: entries that get `PREFIX`.

    Returns:
      All of them.
    """
    return {**first, **{PREFIX + key: value for key, value in second.items()}}


def second_seed(seed: int) -> int:
    """Derives the second source's seed from the run's."""
    return int(np.random.default_rng((seed, SECOND)).integers(2**32))


def drop_padding(rows: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Drops the rows that pad the last batches of a pass.

    Args:
      rows: arrays with a row for each example. Those of the second source have names that start with `also_`.
      batch: the batch that they belong to, with `valid` and, where there is a second source, `also_valid`.

    Returns:
      The rows of real examples.
    """
    second = PREFIX + "valid"
    return {
        name: value[batch[second if second in batch and name.startswith(PREFIX) else "valid"]]
        for name, value in rows.items()
    }
