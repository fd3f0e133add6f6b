"""Base class of the builders: prepared on first use, quietly, without TensorFlow, by several processes at once."""

import contextlib
import io
import os
import sys
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any

import absl.logging
import cv2
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from cvjax.errors import UserError, suggest
from cvjax.packaged import PackagedFile


class Embedded(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    """A dataset made from files that the dependencies ship, or from `sources`, which are files of further packages.

    Subclasses have the splits in `splits`.
    """

    most_boxes = 0  # of any example
    splits: tuple[str, ...] = ("train", "test")
    sources: Mapping[str, PackagedFile] = MappingProxyType({})

    def __init__(self, **kwargs: Any):
        # ArrayRecord is read, and written, without TensorFlow.
        super().__init__(**{"file_format": "array_record", **kwargs})

    @classmethod
    def prepared(cls, config: str | None = None, data_dir: str | os.PathLike | None = None) -> "Embedded":
        """Returns a variant's builder, by default the first; the first call writes the examples below TFDS's folder.

        Raises an OSError if the folder cannot be written, and a UserError if `read_sources` does.
        """
        builder = cls.of(config, data_dir)
        if builder.data_path.exists():
            return builder
        builder.read_sources()  # before anything is written
        print(f"Preparing the dataset {builder.info.full_name} in {builder.data_dir}", file=sys.stderr, flush=True)
        try:
            with silenced():
                builder.download_and_prepare()
        except OSError:
            # TFDS writes to a folder of its own and renames it at the end: another process may have been first.
            if not builder.data_path.exists():
                raise
        return cls.of(config, data_dir)

    @classmethod
    def of(cls, config: str | None = None, data_dir: str | os.PathLike | None = None) -> "Embedded":
        """Returns a variant's builder without preparing it; raises a UserError if there is no such variant."""
        before = absl.logging.get_verbosity()
        absl.logging.set_verbosity(absl.logging.ERROR)  # TFDS warns of variants that are not in its list
        try:
            # By its name where TFDS lists it: a worker's copy of a listed variant is refused as one of the same name.
            variant = config if not config or config in cls.builder_configs else cls.find_variant(config)
            return cls(config=variant or None, data_dir=data_dir)
        finally:
            absl.logging.set_verbosity(before)

    @classmethod
    def find_variant(cls, name: str) -> tfds.core.BuilderConfig:
        """Returns a variant by its name; raises a UserError if there is no such variant."""
        if name not in cls.builder_configs:
            nearest = suggest(name, cls.builder_configs)
            raise UserError(f"data.name='{cls.name}/{name}': {cls.name} has no variant {name!r}. {nearest}")
        return cls.builder_configs[name]

    def read_sources(self) -> dict[str, bytes]:
        """Reads the files of `sources`; raises a UserError if one is absent or not the known one."""
        return {name: source.read(f"data.name={self.name!r}") for name, source in self.sources.items()}


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Keeps TFDS from printing and from drawing progress bars."""
    tfds.disable_progress_bar()
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        tfds.enable_progress_bar()


def png(image: UInt8[np.ndarray, "height width channels"]) -> io.BytesIO:
    """Encodes an image of one or three channels: TFDS would encode arrays with TensorFlow."""
    _, encoded = cv2.imencode(".png", np.ascontiguousarray(image[..., ::-1]))  # seven times faster than PIL
    return io.BytesIO(encoded.tobytes())
