"""Two independent sources in one batch: the second, `data.also`, has its own order, length and keys."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from cvjax.data.batches import Batches, Example

PREFIX = "also_"  # of the second source's keys: also_image, also_label, also_valid
SECOND = 2  # its stream of random numbers, beside those of `cvjax.data.batches`


@dataclasses.dataclass(frozen=True)
class Joint:
    """A random-access sequence of batches of two sources; a pass is as long as the longer source's."""

    first: Batches
    second: Batches

    def __len__(self) -> int:
        """Returns the number of steps."""
        return max(len(self.first), len(self.second))

    def __getitem__(self, step: int) -> Example:
        """Returns this process's part of a batch."""
        return join(self.first[step], self.second[step])

    def order(self) -> dict[str, Any]:
        """Returns what the order of examples depends on."""
        return join(self.first.order(), self.second.order())


def join(first: Mapping[str, Any], second: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the first source's entries, and the second's with `PREFIX` before their keys."""
    return {**first, **{PREFIX + key: value for key, value in second.items()}}


def second_seed(seed: int) -> int:
    """Derives the second source's seed from the run's."""
    return int(np.random.default_rng((seed, SECOND)).integers(2**32))


def drop_padding(rows: Mapping[str, np.ndarray], batch: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Returns the rows of real examples, without those that pad the last batches of a pass.

    Names of the second source's start with `also_`. The batch has `valid` and, for a second source, `also_valid`.
    """
    second = PREFIX + "valid"
    return {
        name: value[batch[second if second in batch and name.startswith(PREFIX) else "valid"]]
        for name, value in rows.items()
    }
