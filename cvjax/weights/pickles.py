"""Pickles read without running anything in them, and the dicts of NumPy arrays that some packages keep in one.

A pickle is a program that names functions and calls them. An `Unpickler` has a table of stand-ins for the few names
that a format needs, and refuses all others. All that a pickle gets hold of is immutable, or made by the pickle itself:
it could otherwise set attributes that outlive it.
"""

import io
import math
import pickle
import pickletools
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from jaxtyping import Shaped

RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")  # NumPy's types


class Refused(Exception):
    """Names what a pickle asked for."""


class Unpickler(pickle.Unpickler):
    """Reads one pickle after the other from a file in memory."""

    def __init__(self, file: io.BytesIO, known: Mapping[tuple[str, str], Any]):
        """Prepares to read a file of pickles.

        `known` is {(module, name): stand-in} of all that they may name, modules by their names before NumPy 2.
        """
        super().__init__(file, encoding="utf-8")
        self.file, self.known = file, known

    def load(self) -> Any:
        """Returns the next object, after a check that it asks for no more memory than it has bytes."""
        start, end = self.file.tell(), len(self.file.getbuffer())
        for opcode, number, _ in pickletools.genops(self.file):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > end:  # as much memory would be allocated
                raise ValueError(f"object {number} of {end} bytes")
        self.file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        """Returns the stand-in of a function or a class; raises `Refused` if there is none."""
        try:
            return self.known[RENAMED.get(module, module), name]
        except KeyError:
            raise Refused(f"{module}.{name}") from None


def find_leaves(tree: Any, kind: type) -> dict[str, Any]:
    """Returns {name: object} of all objects of a kind in dicts, lists and tuples; nested names are joined by dots.

    What is shared or contains itself is looked into once. Raises a ValueError if two objects have the same name.
    """
    found: dict[str, Any] = {}
    for name, leaf in _walk(tree, kind, "", set()):
        if name in found:
            raise ValueError(f"two tensors are called {name}")
        found[name] = leaf
    return found


def _walk(node: Any, kind: type, name: str, seen: set[int]) -> Iterator[tuple[str, Any]]:
    if isinstance(node, kind):
        yield name, node
    elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
        seen.add(id(node))
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _walk(child, kind, f"{name}.{key}" if name else str(key), seen)


# --- dicts of arrays ----------------------------------------------------------------------------------------------


class _State:
    """An object that keeps what a pickle sets as its state."""

    __slots__ = ("state",)

    def __init__(self):
        self.state = None

    def __setstate__(self, state):
        self.state = state


class _Array(_State):
    """Stands in for an array; its state is version, shape, dtype, order of the axes and bytes."""

    __slots__ = ()


class _Type(_State):
    """Stands in for a dtype; its state is a tuple whose second part is the order of the bytes."""

    __slots__ = ("code",)

    def __init__(self, code: str):
        super().__init__()
        self.code = code


class _Reconstruct:
    """Stands in for numpy.core.multiarray._reconstruct."""

    __slots__ = ()

    def __call__(self, kind, shape, code) -> _Array:
        return _Array()


class _MakeType:
    """Stands in for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code, align=False, copy=False) -> _Type:
        if code not in NUMBERS:
            raise Refused(f"an array of numpy.dtype({code!r:.40})")
        return _Type(code)


_ARRAYS = {
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy", "ndarray"): "ndarray",  # the first argument of _reconstruct
    ("numpy", "dtype"): _MakeType(),
}


def read_arrays(content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the NumPy arrays in the dicts of a pickle, {name: array}, read-only; nested names are joined by dots.

    Raises `Refused` if it names anything else, and a ValueError if an array does not have the bytes of its shape.
    """
    tree = Unpickler(io.BytesIO(content), _ARRAYS).load()
    return {name: _materialise(name, array) for name, array in find_leaves(tree, _Array).items()}


def _materialise(name: str, array: _Array) -> np.ndarray:
    """The array of a stand-in, after a check of its state."""
    match array.state:
        case (_, tuple(shape), _Type(code=code, state=(_, "<" | ">" | "|" as order, *_)), fortran, bytes(data)):
            dtype = np.dtype(order + code)
        case _:
            raise ValueError(f"{name} is not an array of numbers")
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} has the shape {shape} and {len(data)} bytes of {dtype}")
    return np.ndarray(shape, dtype, data, order="F" if fortran else "C")
