"""Datasets to batches: TFDS by name or a folder of images, in memory or streamed by Grain, the same on every host."""

from cvjax.data.joint import drop_padding
from cvjax.data.loading import Data, TrainIterator, arrays, load
from cvjax.data.settings import DEFAULTS, check, complete, refuse_workdir

__all__ = ["DEFAULTS", "Data", "TrainIterator", "arrays", "check", "complete", "drop_padding", "load", "refuse_workdir"]
