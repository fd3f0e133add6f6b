"""Derived features on disk: one file per result, named by the image's content and shared by all processes."""

import dataclasses
import functools
import hashlib
import os
import tempfile
import threading
from pathlib import Path

import numpy as np
from jaxtyping import Int32, Shaped

from cvjax.data.batches import to_float
from cvjax.data.derive import Derived
from cvjax.data.sources import Source, read_labels
from cvjax.errors import UserError
from cvjax.rundir import disk_is_full

# Python 3.11 cannot parse the headers of two .npy files at once where a garbage collection calls back, as with JAX.
HEADERS = threading.Lock()


@dataclasses.dataclass(frozen=True)
class WithDerived:
    """A source with derived features, computed on first use and read from the folder `root` afterwards.

    The key of a result covers the image's pixels and the function's module and arguments. If one changes, the result is
    computed again; old files stay until the folder is removed.
    """

    source: Source
    derived: tuple[Derived, ...]
    root: Path

    @property
    def name(self) -> str:
        """Name of the dataset."""
        return self.source.name

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes."""
        return self.source.classes

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.source)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        example = self.source[index]
        content = image_digest(example["image"])
        results = {}
        for derived, folder in zip(self.derived, self._folders, strict=True):
            file = folder / content[:2] / f"{content}.npy"
            result = _read(file)
            if result is None:
                try:
                    result = derived.compute(to_float(example["image"]))
                except UserError as error:
                    raise UserError(f"{self.describe(index)}: {error}") from error
                _write(file, result)
            if derived.feature in example:
                raise UserError(
                    f"data.derive: {self.name} has a feature {derived.feature!r} already; choose another name"
                )
            results[derived.feature] = result
        return {**example, **results}

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return self.source.describe(index)

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples."""
        return read_labels(self.source)

    @functools.cached_property
    def _folders(self) -> list[Path]:
        """The folder of each feature's results."""
        names = [(derived.function.partition(":")[2], derived.fingerprint) for derived in self.derived]
        return [self.root / f"{function}-{fingerprint[:16]}" for function, fingerprint in names]


def image_digest(image: Shaped[np.ndarray, "height width channels"]) -> str:
    """Returns the SHA-256 of an image's pixels, type and shape."""
    digest = hashlib.sha256(f"{image.dtype.str} {image.shape}".encode())
    digest.update(np.ascontiguousarray(image).data)
    return digest.hexdigest()


def _read(file: Path) -> np.ndarray | None:
    """Reads a result; None if it is missing or unreadable."""
    try:
        with HEADERS:
            mapped = np.load(file, mmap_mode="r", allow_pickle=False)
        return np.array(mapped)
    except (OSError, ValueError, EOFError):
        return None


def _write(file: Path, result: np.ndarray) -> None:
    """Writes a result atomically: other processes may write the same one."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as draft:
            try:
                np.save(draft, result)
                draft.close()
                os.replace(draft.name, file)
            except BaseException:
                os.unlink(draft.name)
                raise
    except OSError as error:
        advice = "Make room there, or set" if disk_is_full(error) else "Set"
        raise UserError(
            f"data.derive: cannot write {file.parent}: {error.strerror or error}. {advice} data.derive_dir to another "
            "folder"
        ) from error
