"""The interface of a dataset: decoded examples by index, with names for error messages."""

import codecs
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import numpy as np
from jaxtyping import Int32

from cvjax.errors import UserError


def readable(path: str | Path) -> str:
    """Returns a path as text that can be printed and stored; bytes that are not UTF-8 are escaped."""
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def read_text(path: Path) -> str:
    """Reads a text file, with or without a byte order mark; raises a UserError if it cannot be read or is not UTF-8."""
    try:
        content, fault = decode_text(path.read_bytes())
    except OSError as error:
        raise UserError(f"{readable(path)} cannot be read: {error.strerror}") from error
    if fault:
        raise UserError(f"{readable(path)} {fault}")
    return content


def decode_text(content: bytes) -> tuple[str, str]:
    """Returns the text of a file, and what is wrong with it or ""."""
    marked = content.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))  # as Windows' shells write it
    encoding = "utf-16" if marked else "utf-8-sig"
    try:
        return content.decode(encoding), ""
    except UnicodeDecodeError as error:
        line = 1 + content.count(b"\n", 0, error.start)
        return content.decode(encoding, "replace"), f"is not UTF-8 in line {line}: save it in that encoding"


def check_utf8(path: str | Path, setting: str, library: str) -> None:
    """Raises a UserError, which names `setting`, for a path that a library cannot take: one that is not UTF-8."""
    if readable(path) != str(path):
        raise UserError(f"{setting}={readable(path)} is not UTF-8, and {library} takes no other path: rename it.")


class CorruptExample(UserError):
    """An example that cannot be decoded; `fault` says which and why, the message also what to do."""

    @property
    def fault(self) -> str:
        """Which example cannot be decoded, and why."""
        return self.args[0]

    def __str__(self) -> str:
        """Returns the message."""
        return f'{self.fault}. Mend or remove it; data.on_corrupt="skip" leaves out what cannot be read'


@runtime_checkable
class Source(Protocol):
    """One split of a dataset. Examples are dicts of NumPy arrays; `image` is uint8 [height, width, channels].

    Attributes:
      name: the dataset's name in messages.
      classes: names of the labels, or ().
    """

    name: str
    classes: tuple[str, ...]

    def __len__(self) -> int:
        """Returns the number of examples."""

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""

    def describe(self, index: int) -> str:
        """Names an example for an error message."""


def read_labels(source: Source) -> Int32[np.ndarray, " examples"]:
    """Returns the labels of all examples, without decoding images if the source has a method of this name."""
    if hasattr(source, "read_labels"):
        return source.read_labels()
    return np.array([source[index]["label"] for index in range(len(source))], np.int32)


def read_texts(source: Source, name: str) -> list[tuple[str, ...]]:
    """Returns the texts called `name` of all examples, without decoding images if the source has such a method."""
    if hasattr(source, "read_texts"):
        return source.read_texts(name)
    return [tuple(np.atleast_1d(source[index][name]).tolist()) for index in range(len(source))]


class Subset:
    """Some examples of a source, in a given order."""

    def __init__(self, source: Source, indices: Sequence[int]):
        self.source, self.indices = source, indices
        self.name, self.classes = source.name, source.classes

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.indices)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        return self.source[self.indices[index]]

    def read_labels(self) -> Int32[np.ndarray, " examples"]:
        """Returns the labels of all examples."""
        return read_labels(self.source)[np.asarray(self.indices)]

    def read_texts(self, name: str) -> list[tuple[str, ...]]:
        """Returns the texts of all examples."""
        texts = read_texts(self.source, name)
        return [texts[index] for index in self.indices]

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return self.source.describe(self.indices[index])


class Decoded:
    """A source whose examples are in memory."""

    def __init__(self, source: Source, examples: Sequence[dict[str, np.ndarray]]):
        self.source, self.examples = source, examples
        self.name, self.classes = source.name, source.classes

    def __len__(self) -> int:
        """Returns the number of examples."""
        return len(self.examples)

    def __getitem__(self, index: int) -> dict[str, np.ndarray]:
        """Decodes an example."""
        return self.examples[index]

    def describe(self, index: int) -> str:
        """Names an example for an error message."""
        return self.source.describe(index)
