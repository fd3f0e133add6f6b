"""Tensors of ncnn's pair of files: a graph in text, `.param`, and its numbers one behind the other, `.bin`.

The graph is not run; it says in which order layers have numbers, how many, and of which shapes. Before the weights of a
convolution stands a tag of four bytes that tells their type; biases are always float32. ncnn's documentation,
"param and model file structure", describes both.
"""

import re
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Shaped

from cvjax.errors import UserError

MAGIC = "7767517"  # the first line of a graph
TAGS = {0x00000000: "<f4", 0x0002C056: "<f4", 0x01306B47: "<f2"}  # of other types, quantised ones
WEIGHTLESS = (
    *("Input", "Split", "Concat", "Eltwise", "BinaryOp", "UnaryOp", "Interp", "Pooling", "Padding", "Crop", "Slice"),
    *("ReLU", "Sigmoid", "TanH", "Softmax", "Clip", "Dropout", "Flatten", "Reshape", "Permute", "PixelShuffle", "Noop"),
)
ALIGNMENT = 4  # bytes to which weights of 16 bits are padded


def read_ncnn(path: Path, graph: str, content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns {"LAYER.weight": [out, in, height, width], "LAYER.bias": [out]} of all convolutions, in their order.

    Weights keep the type of the file, float16 or float32. Raises a UserError for a graph that is none, layers with
    other weights than those of plain convolutions, quantised weights, and numbers that are too few or too many.

    Args:
      path: of the numbers, for messages.
      graph: content of the file `.param`.
      content: of the file `.bin`.
    """
    lines = graph.split("\n")
    if lines[0].strip() != MAGIC:
        raise UserError(f"{path}: its graph does not begin with {MAGIC}, so it is no .param file of ncnn.")
    tensors, reader = {}, _Reader(path, content)
    for line in lines[2:]:
        kind, *rest = line.split() or [""]
        if kind == "Convolution":
            name, given = rest[0], _options(rest)
            tensors |= _convolution(reader, name, given)
        elif kind and kind not in WEIGHTLESS:
            raise UserError(f"{path}: {rest[0]} is a layer {kind}, whose weights are not read.")
    if reader.place != len(content):
        raise UserError(f"{path} has {len(content)} bytes, of which its graph knows {reader.place}.")
    return tensors


def _options(words: list[str]) -> Mapping[int, str]:
    """The options of a layer, `0=64`; lists have other numbers, below -23300."""
    return {
        int(key): value
        for key, _, value in (word.partition("=") for word in words)
        if re.fullmatch(r"\d+", key) and value
    }


def _convolution(reader: "_Reader", name: str, given: Mapping[int, str]) -> dict[str, np.ndarray]:
    features, columns, count = (int(given.get(key, 0)) for key in (0, 1, 6))
    rows = int(given.get(11, columns))
    per_input = features * rows * columns
    if not per_input or count % per_input:
        raise UserError(f"{reader.path}: {name} has {count} weights for {features} kernels of {rows}x{columns}.")
    tag = int(reader.take(name, "<u4", 1)[0])
    if tag not in TAGS:
        raise UserError(f"{reader.path}: the weights of {name} are of the type {tag:#x}, which is not read.")
    weight = reader.take(name, TAGS[tag], count).reshape(features, -1, rows, columns)
    tensors = {f"{name}.weight": weight}
    return tensors | ({f"{name}.bias": reader.take(name, "<f4", features)} if int(given.get(5, 0)) else {})


class _Reader:
    """Takes numbers from the front of a file."""

    def __init__(self, path: Path, content: bytes):
        self.path, self.content, self.place = path, content, 0

    def take(self, name: str, dtype: str, count: int) -> np.ndarray:
        size = count * np.dtype(dtype).itemsize
        if self.place + size > len(self.content):
            raise UserError(f"{self.path} ends within {name}: it has {len(self.content)} bytes.")
        numbers = np.frombuffer(self.content, dtype, count, self.place)
        self.place += -(-size // ALIGNMENT) * ALIGNMENT
        return numbers
