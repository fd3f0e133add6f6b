"""Derived features on disk: one file per result, named by the image's content and shared by all processes.

Beside the results a list tells which content an image had when it was read last, so that a changed one can be named.
"""

import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import sys
import tempfile
import threading
from collections.abc import Iterator, Mapping
from concurrent import futures
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Shaped

from cvjax.data.batches import to_float
from cvjax.data.derive import Derived
from cvjax.data.sources import Source, read_labels
from cvjax.errors import UserError
from cvjax.rundir import disk_is_full

# Python 3.11 cannot parse the headers of two .npy files at once where a garbage collection calls back, as with JAX.
HEADERS = threading.Lock()
CONTENTS = "contents.jsonl"  # the list: a line for each image, its content and its name


class Refreshed(NamedTuple):
    """How many images a split has, of how many something was computed, and how many of these had changed."""

    images: int
    computed: int
    changed: int


@dataclasses.dataclass(frozen=True)
class WithDerived:
    """A source with derived features, computed on first use and read from the folder `root` afterwards.

    The key of a result covers the image's pixels and the function's module and arguments. If one changes, the result is
    computed again, with a line on stderr if it was the image; old files stay until the folder is removed.
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
        results, _, _ = self._derive(index, example)
        for feature in results:
            if feature in example:
                raise UserError(f"data.derive: {self.name} has a feature {feature!r} already; choose another name")
        return {**example, **results}

    def refresh(self) -> Refreshed:
        """Computes what is missing for all examples, in threads."""
        with futures.ThreadPoolExecutor() as pool:
            each = lambda index: self._derive(index, self.source[index], note=True)[1:]  # noqa: E731
            done = list(pool.map(each, range(len(self))))
        return Refreshed(len(done), *(sum(column) for column in zip(*done, strict=True)))

    def _derive(
        self, index: int, example: Mapping[str, np.ndarray], note: bool = False
    ) -> tuple[dict[str, np.ndarray], bool, bool]:
        """Returns (results by feature, whether one was computed, whether the image had changed).

        What is computed is listed; with `note` what is there already is listed, too.
        """
        content, described = image_digest(example["image"]), self.describe(index)
        results, computed, changed = {}, False, False
        for derived, folder, contents in zip(self.derived, self._folders, self._contents, strict=True):
            file = folder / content[:2] / f"{content}.npy"
            result = _read(file)
            if result is None:
                before = contents.get(described)
                if before not in (None, content):
                    changed = True
                    print(f"{described} has changed: {derived.feature} computed again", file=sys.stderr, flush=True)
                try:
                    result = derived.compute(to_float(example["image"]))
                except UserError as error:
                    raise UserError(f"{described}: {error}") from error
                _write(file, result)
                computed = True
            if (computed or note) and contents.get(described) != content:
                _append(folder / CONTENTS, json.dumps([content, described]))
                contents[described] = content
            results[derived.feature] = result
        return results, computed, changed

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

    @functools.cached_property
    def _contents(self) -> list[dict[str, str]]:
        """Content by name of the image, for each feature, as listed when this source was first read."""
        return [_read_contents(folder / CONTENTS) for folder in self._folders]


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


def _read_contents(file: Path) -> dict[str, str]:
    """Reads a list of contents, in which later lines count; a torn line is left out."""
    contents = {}
    try:
        lines = file.read_text("utf-8", errors="replace").splitlines()
    except OSError:
        return contents
    for line in lines:
        with contextlib.suppress(ValueError):
            content, name = json.loads(line)
            contents[name] = content
    return contents


def _append(file: Path, line: str) -> None:
    """Adds a line in one piece: other processes may add theirs."""
    with _explained(file.parent), open(file, "ab", buffering=0) as listed:
        listed.write((line + "\n").encode())


def _write(file: Path, result: np.ndarray) -> None:
    """Writes a result atomically: other processes may write the same one."""
    with _explained(file.parent):
        file.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=file.parent, suffix=".part", delete=False) as draft:
            try:
                np.save(draft, result)
                draft.close()
                os.replace(draft.name, file)
            except BaseException:
                os.unlink(draft.name)
                raise


@contextlib.contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turns an error while writing into a UserError that says what to do."""
    try:
        yield
    except OSError as error:
        advice = "Make room there, or set" if disk_is_full(error) else "Set"
        raise UserError(
            f"data.derive: cannot write {folder}: {error.strerror or error}. {advice} data.derive_dir to another folder"
        ) from error
