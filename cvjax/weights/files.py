"""Tensors of a checkpoint file of the user's, read without running anything that is in it: `.pth` and `.safetensors`.

A `.pth` is a pickle: a program that names functions and calls them. `read_tensors` lets it name torch's few functions
that put tensors together, of which there are stand-ins here, and refuses all others; torch itself is not needed. Both
of torch's formats are read, the zip archive of 1.6 (2020) and later and the one before.
"""

import io
import pickle
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors.numpy
from jaxtyping import Shaped
from safetensors import SafetensorError

from cvjax.errors import UserError, suggest_beside

DTYPES = {
    "DoubleStorage": np.dtype("<f8"),
    "FloatStorage": np.dtype("<f4"),
    "HalfStorage": np.dtype("<f2"),
    "BFloat16Storage": np.dtype(jnp.bfloat16),
    "LongStorage": np.dtype("<i8"),
    "IntStorage": np.dtype("<i4"),
    "ShortStorage": np.dtype("<i2"),
    "CharStorage": np.dtype("i1"),
    "ByteStorage": np.dtype("u1"),
    "BoolStorage": np.dtype("?"),
}
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what a file of the older format starts with
LEGACY_VERSION = 1001


def read_tensors(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads all tensors of a `.pth` or `.safetensors` file.

    Args:
      path: the file. A `.pth` holds a dict of tensors, such as a state dict, or dicts of dicts; what is not a tensor is
        left out.

    Returns:
      {name: array}, in the types of the file; the names of dicts within dicts are joined by dots. The arrays of a
      `.pth` are read-only, and share memory where the tensors did.

    Raises:
      UserError: no such file, neither of these formats, a damaged file, or a `.pth` that calls anything else.
    """
    path = Path(path).expanduser()
    try:
        if path.suffix == ".safetensors":
            return safetensors.numpy.load_file(path)
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'no such file'}. {suggest_beside(path)}".rstrip()) from error
    except SafetensorError as error:
        raise UserError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    reader = _read_legacy if content.startswith(LEGACY) else _read_zip
    if reader is _read_zip and not zipfile.is_zipfile(io.BytesIO(content)):
        raise UserError(f"{path} is neither a .safetensors file nor one that torch.save wrote.")
    try:
        tree, data = reader(content)
        tensors: dict[str, np.ndarray] = {}
        for name, tensor in _leaves(tree, "", set()):
            if name in tensors:
                raise ValueError(f"two tensors are called {name}")
            tensors[name] = _materialise(tensor, data)
    except _Refused as refused:
        raise UserError(
            f"{path} is not read: it asks for {refused}, and a file that may call that may run any code. It has to "
            "hold tensors only: in torch, torch.save(model.state_dict(), FILE) writes such a file."
        ) from None
    except Exception as error:  # whatever a damaged or a made-up file leads to
        raise UserError(f"{path} is damaged, or was not written by torch.save: {error!r}") from error
    if not tensors or "" in tensors:
        raise UserError(f"{path} holds no dict of tensors: torch.save(model.state_dict(), FILE) writes one.")
    return tensors


# --- what a pickle may name ---------------------------------------------------------------------------------------
# All that it gets hold of is immutable: it could otherwise set attributes that outlive it.


class _Refused(Exception):
    """Names what a pickle asked for."""


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class _RebuildTensor:
    """Stands in for torch._utils._rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> _Tensor:
        if metadata:
            raise _Refused(f"a tensor with {metadata}")  # conjugated or negated lazily
        return _Tensor(storage, offset, size, stride)


class _RebuildParameter:
    """Stands in for torch._utils._rebuild_parameter."""

    __slots__ = ()

    def __call__(self, data, requires_grad=False, hooks=None) -> Any:
        return data


_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    **{("torch", kind): kind for kind in DTYPES},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="utf-8")
        self.storages: dict[str, _Storage] = {}

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[module, name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), *views) if kind in DTYPES and not any(views):
                return self.storages.setdefault(key, _Storage(kind, key, count))
        raise _Refused(f"the storage {pid!r:.80}")


# --- the two formats ----------------------------------------------------------------------------------------------


def _read_zip(content: bytes) -> tuple[Any, Callable[[_Storage], bytes]]:
    """The objects of a zip archive, and what reads the bytes of a storage."""
    archive = zipfile.ZipFile(io.BytesIO(content))
    [index] = [name for name in archive.namelist() if name.endswith("/data.pkl") and name.count("/") == 1]
    folder = index.removesuffix("data.pkl")

    def read(name: str) -> bytes:
        info = archive.getinfo(folder + name)
        if info.compress_type != zipfile.ZIP_STORED:  # torch compresses nothing, and what is small stays so
            raise ValueError(f"{info.filename} is compressed")
        return archive.read(info)

    if folder + "byteorder" in archive.namelist() and read("byteorder") != b"little":
        raise ValueError("big-endian numbers")
    blocks: dict[str, bytes] = {}

    def bytes_of(storage: _Storage) -> bytes:
        if storage.key not in blocks:
            blocks[storage.key] = read(f"data/{storage.key}")
        return blocks[storage.key]

    return _Unpickler(io.BytesIO(read("data.pkl"))).load(), bytes_of


def _read_legacy(content: bytes) -> tuple[Any, Callable[[_Storage], memoryview]]:
    """The same of the older format: five pickles, then the storages one behind the other, each after its length."""
    file = io.BytesIO(content)
    _, version, system = (_Unpickler(file).load() for _ in range(3))
    if version != LEGACY_VERSION or not system["little_endian"]:
        raise ValueError(f"version {version}, {system}")
    unpickler = _Unpickler(file)
    tree, blocks = unpickler.load(), {}
    for key in _Unpickler(file).load():
        count = int.from_bytes(file.read(8), "little")
        size = count * DTYPES[unpickler.storages[key].kind].itemsize
        blocks[key] = memoryview(content)[file.tell() : file.tell() + size]
        file.seek(size, io.SEEK_CUR)
    return tree, lambda storage: blocks[storage.key]


def _leaves(node: Any, name: str, seen: set[int]) -> Iterator[tuple[str, _Tensor]]:
    """All tensors below a node with their names; what is shared or contains itself is looked into once."""
    if isinstance(node, _Tensor):
        yield name, node
    elif isinstance(node, (dict, list, tuple)) and id(node) not in seen:
        seen.add(id(node))
        for key, child in node.items() if isinstance(node, dict) else enumerate(node):
            yield from _leaves(child, f"{name}.{key}" if name else str(key), seen)


def _materialise(tensor: _Tensor, data: Callable[[_Storage], bytes | memoryview]) -> np.ndarray:
    """The array of a tensor, after a check that it lies within its storage."""
    (kind, key, count), offset, size, stride = tensor
    dtype = DTYPES[kind]
    if not all(type(number) is int and number >= 0 for number in (count, offset, *size, *stride)):
        raise ValueError(f"the tensor's sizes are {size}, its strides {stride}, its offset {offset}")
    if 0 in size:
        return np.broadcast_to(dtype.type(0), size)
    block = data(tensor.storage)
    if len(block) < count * dtype.itemsize:
        raise ValueError(f"storage {key} is cut short: {len(block)} bytes of {count * dtype.itemsize}")
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= count:
        raise ValueError(f"a tensor of size {size} reaches beyond its storage of {count}")
    strides = [step * dtype.itemsize for step in stride]
    flat = np.frombuffer(block, dtype, count)
    return np.lib.stride_tricks.as_strided(flat[offset:], size, strides, writeable=False)
