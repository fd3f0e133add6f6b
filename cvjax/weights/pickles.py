"""Pickles read without running anything in them, and the dicts of NumPy arrays that some packages keep in one.

A pickle is a program that names functions and calls them. An `Unpickler` has a table of stand-ins for the few names
that a format needs, and refuses all others. All that a pickle gets hold of is immutable, or made by the pickle itself:
it could otherwise set attributes that outlive it.
"""

import io
import math
import pickle
import pickletools
from collections import OrderedDict
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Shaped

RENAMED = {
    "__builtin__": "builtins",
    "numpy._core.multiarray": "numpy.core.multiarray",
    "numpy._core.numeric": "numpy.core.numeric",
}
NUMBERS = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")  # NumPy's types
ML_DTYPES = ("bfloat16", "float8_e4m3fn", "float8_e5m2", "float8_e4m3fnuz", "float8_e5m2fnuz", "float8_e8m0fnu")


class Refused(Exception):
    """Names what a pickle asked for."""


class Unreadable(Exception):
    """Says which tensor no NumPy array can be, and why."""


class Unrepresented(NamedTuple):
    """Stands in for a tensor that no NumPy array can be."""

    reason: str  # goes on after the name of the tensor: "is sparse"


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


def find_leaves(tree: Any, kind: type) -> tuple[dict[str, Any], list[str]]:
    """Returns {name: object} of all objects of a kind in dicts, lists and tuples, and the names of everything else.

    Nested names are joined by dots; what holds nothing of the kind is named as a whole. What is shared or contains
    itself is looked into once. Raises `Unreadable` for what is `Unrepresented`, and a ValueError if two objects have
    the same name.
    """
    found: dict[str, Any] = {}
    around, others = set(), []
    for path, leaf in _walk(tree, (), set()):
        name = ".".join(path)
        if isinstance(leaf, Unrepresented):
            raise Unreadable(f"{name or 'its tensor'} {leaf.reason}")
        if not isinstance(leaf, kind):
            others.append(path)
            continue
        if name in found:
            raise ValueError(f"two tensors are called {name}")
        found[name] = leaf
        around |= {path[:depth] for depth in range(len(path))}
    tops = [next(path[:depth] for depth in range(len(path) + 1) if path[:depth] not in around) for path in others]
    return found, list(dict.fromkeys(map(".".join, tops)))


def _walk(node: Any, path: tuple[str, ...], seen: set[int]) -> Iterator[tuple[tuple[str, ...], Any]]:
    if type(node) not in CONTAINERS:
        yield path, node
    elif id(node) not in seen:
        seen.add(id(node))
        for key, child in enumerate(node) if isinstance(node, (list, tuple)) else node.items():
            yield from _walk(child, (*path, str(key)), seen)


# --- harmless values ----------------------------------------------------------------------------------------------


class Ignored:
    """Stands in for harmless values that are neither tensors nor arrays: takes any arguments and keeps none."""

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        """Makes one of any arguments."""
        return super().__new__(cls)

    def __setstate__(self, *state):
        """Takes any state."""


class _MakeDict:
    """Stands in for collections.defaultdict, which a pickle then fills."""

    __slots__ = ()

    def __call__(self, factory=None) -> dict:
        return {}


class _Encoded:
    """Text that stands for bytes, which share memory if the text does."""

    __slots__ = ("text",)

    def __init__(self, text: str):
        self.text = text


class _Encode:
    """Stands in for _codecs.encode and bytes, by which bytes are written before protocol 3."""

    __slots__ = ()

    def __call__(self, text="", encoding="latin1") -> _Encoded:
        return _Encoded(text)


CONTAINERS = (dict, OrderedDict, list, tuple)
HARMLESS = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _MakeDict(),
    ("collections", "Counter"): Ignored,
    ("argparse", "Namespace"): Ignored,
    ("_codecs", "encode"): _Encode(),
    ("builtins", "bytes"): _Encode(),
    **{
        ("builtins", name): Ignored
        for name in ("bytearray", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str")
    },
}


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


class _FromBuffer:
    """Stands in for numpy.core.numeric._frombuffer, which protocol 5 calls."""

    __slots__ = ()

    def __call__(self, data, dtype, shape, order) -> _Array:
        array = _Array()
        array.state = (None, shape, dtype, order == "F", data)
        return array


class _MakeType:
    """Stands in for numpy.dtype."""

    __slots__ = ()

    def __call__(self, code, align=False, copy=False) -> _Type:
        return _Type(code)


_ARRAYS = {
    **HARMLESS,
    ("numpy.core.multiarray", "_reconstruct"): _Reconstruct(),
    ("numpy.core.multiarray", "scalar"): Ignored,
    ("numpy.core.numeric", "_frombuffer"): _FromBuffer(),
    ("numpy", "ndarray"): "ndarray",  # the first argument of _reconstruct
    ("numpy", "dtype"): _MakeType(),
    **{("ml_dtypes", name): name for name in ML_DTYPES},
}


def read_arrays(content: bytes) -> tuple[dict[str, Shaped[np.ndarray, "..."]], list[str]]:
    """Returns the NumPy arrays in the dicts of a pickle, read-only, as `find_leaves` does.

    Raises `Refused` if it names anything else, `Unreadable` for an array that is not of numbers, and a ValueError if
    one does not have the bytes of its shape.
    """
    tree = Unpickler(io.BytesIO(content), _ARRAYS).load()
    arrays, others = find_leaves(tree, _Array)
    blocks: dict[int, bytes] = {}
    return {name: _materialise(name, array, blocks) for name, array in arrays.items()}, others


def _materialise(name: str, array: _Array, blocks: dict[int, bytes]) -> np.ndarray:
    """The array of a stand-in, after a check of its state; `blocks` has the bytes of texts that are encoded already."""
    match array.state:
        case (_, _, _Type(code=str(code)), *_) if code not in (*NUMBERS, *ML_DTYPES):
            raise Unreadable(f"{name} is an array of numpy.dtype({code!r:.40}), not of numbers")
        case (_, tuple(shape), _Type(code=code, state=(_, "<" | ">" | "|" as order, *_)), fortran, data):
            dtype = np.dtype(order + code if code in NUMBERS else getattr(jnp, code))
        case _:
            raise ValueError(f"{name} is not an array of numbers")
    if isinstance(data, _Encoded) and isinstance(data.text, str):
        if id(data.text) not in blocks:
            blocks[id(data.text)] = data.text.encode("latin1")
        data = blocks[id(data.text)]
    if not isinstance(data, (bytes, bytearray)):
        raise ValueError(f"{name} is not an array of numbers")
    if not all(type(side) is int and side >= 0 for side in shape) or math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"{name} has the shape {shape} and {len(data)} bytes of {dtype}")
    made = np.ndarray(shape, dtype, data, order="F" if fortran else "C")
    made.flags.writeable = False
    return made
