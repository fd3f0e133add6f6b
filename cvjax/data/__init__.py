"""Datasets to batches: TFDS by name or a folder of images, in memory or streamed by Grain, the same on every host."""

from cvjax.data.joint import drop_padding
from cvjax.data.loading import Data, TrainIterator, arrays, load, refresh_derived
from cvjax.data.settings import DEFAULTS, check, complete, refuse_workdir

__all__ = [
    "DEFAULTS",
    "Data",
    "TrainIterator",
    "arrays",
    "check",
    "complete",
    "drop_padding",
    "load",
    "refresh_derived",
    "refuse_workdir",
]
