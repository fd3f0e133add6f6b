"""Tensors of a checkpoint file of the user's, read without running anything that is in it: `.pth` and `.safetensors`.

A `.pth` is a pickle: a program that names functions and calls them. `read_tensors` has stand-ins for torch's few
functions that put tensors together, and for harmless values that lie beside tensors; it refuses all others. Torch
itself is not needed. Both of its formats are read, the zip archive of 1.6 (2020) and later and the one before.
"""

import io
import pickle
import pickletools
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Shaped

from cvjax.errors import UserError, suggest_beside
from cvjax.weights.npz import read_npz

DTYPES = {  # torch's name: NumPy's type
    "float64": np.dtype("<f8"),
    "float32": np.dtype("<f4"),
    "float16": np.dtype("<f2"),
    "bfloat16": np.dtype(jnp.bfloat16),
    "float8_e4m3fn": np.dtype(jnp.float8_e4m3fn),
    "float8_e5m2": np.dtype(jnp.float8_e5m2),
    "float8_e4m3fnuz": np.dtype(jnp.float8_e4m3fnuz),
    "float8_e5m2fnuz": np.dtype(jnp.float8_e5m2fnuz),
    "float8_e8m0fnu": np.dtype(jnp.float8_e8m0fnu),
    "complex128": np.dtype("<c16"),
    "complex64": np.dtype("<c8"),
    "int64": np.dtype("<i8"),
    "int32": np.dtype("<i4"),
    "int16": np.dtype("<i2"),
    "int8": np.dtype("i1"),
    "uint64": np.dtype("<u8"),
    "uint32": np.dtype("<u4"),
    "uint16": np.dtype("<u2"),
    "uint8": np.dtype("u1"),
    "bool": np.dtype("?"),
}
STORAGES = {  # kind: type of its numbers
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "BFloat16Storage": "bfloat16",
    "ComplexDoubleStorage": "complex128",
    "ComplexFloatStorage": "complex64",
    "LongStorage": "int64",
    "IntStorage": "int32",
    "ShortStorage": "int16",
    "CharStorage": "int8",
    "ByteStorage": "uint8",
    "BoolStorage": "bool",
    "UntypedStorage": "uint8",
}
SAFETENSORS = {  # safetensors' name: torch's
    "BOOL": "bool",
    "BF16": "bfloat16",
    "F8_E4M3": "float8_e4m3fn",
    "F8_E5M2": "float8_e5m2",
    "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz",
    "F8_E5M2FNUZ": "float8_e5m2fnuz",
    "C64": "complex64",
    **{f"{short}{bits}": f"{long}{bits}" for short, long in (("I", "int"), ("U", "uint")) for bits in (8, 16, 32, 64)},
    **{f"F{bits}": f"float{bits}" for bits in (16, 32, 64)},
}
LEGACY = pickle.dumps(0x1950A86A20F9469CFC6C, protocol=2)  # what a file of the older format starts with
LEGACY_VERSION = 1001


def read_tensors(path: str | Path) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads all tensors of a `.pth`, `.safetensors` or `.npz` file.

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
        content = path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'no such file'}. {suggest_beside(path)}".rstrip()) from error
    if path.suffix.lower() == ".safetensors":
        return _read_safetensors(path, content)
    if path.suffix.lower() == ".npz":
        return read_npz(path, content)
    legacy = content.startswith(LEGACY)
    if not legacy and not content.startswith(b"PK"):
        raise UserError(f"{path} is neither a .safetensors file nor one that torch.save wrote.")
    reader = _read_legacy if legacy else _read_zip
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


def _read_safetensors(path: Path, content: bytes) -> dict[str, np.ndarray]:
    try:
        found = safetensors.deserialize(content)
        unknown = [f"{name} of {tensor['dtype']}" for name, tensor in found if tensor["dtype"] not in SAFETENSORS]
        if not unknown:
            dtypes = {name: DTYPES[SAFETENSORS[tensor["dtype"]]] for name, tensor in found}
            return {name: np.frombuffer(t["data"], dtypes[name]).reshape(t["shape"]) for name, t in found}
    except Exception as error:  # whatever a damaged file leads to
        raise UserError(f"{path} is no safetensors file, or a damaged one: {error}") from error
    raise UserError(f"{path} holds tensors of types that NumPy has not: {', '.join(unknown[:3])}. Convert them to F32.")


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
    dtype: str


class _RebuildTensor:
    """Stands in for torch._utils._rebuild_tensor (before torch 0.4) and _rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> _Tensor:
        return _RebuildTypedTensor()(
            storage, offset, size, stride, requires_grad, hooks, STORAGES[storage.kind], metadata
        )


class _RebuildTypedTensor:
    """Stands in for torch._utils._rebuild_tensor_v3, of types that have no storage of their own."""

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> _Tensor:
        if metadata:
            raise _Refused(f"a tensor with {metadata}")  # conjugated or negated lazily
        if dtype not in DTYPES:
            raise _Refused(f"a tensor of torch.{dtype}")
        return _Tensor(storage, offset, size, stride, dtype)


class _RebuildParameter:
    """Stands in for torch._utils._rebuild_parameter and _rebuild_parameter_with_state."""

    __slots__ = ()

    def __call__(self, data, requires_grad=False, hooks=None, state=None) -> Any:
        return data


class _MakeDict:
    """Stands in for collections.defaultdict, which a pickle then fills."""

    __slots__ = ()

    def __call__(self, factory=None) -> dict:
        return {}


class _Ignored:
    """Stands in for harmless values that are not tensors: takes any arguments and keeps none."""

    __slots__ = ()

    def __new__(cls, *args, **kwargs):
        return super().__new__(cls)

    def __setstate__(self, *state):
        pass


_HARMLESS = {
    "torch": ("Size", "device"),
    "torch.serialization": ("_get_layout",),
    "builtins": ("bytearray", "bytes", "complex", "dict", "float", "frozenset", "int", "list", "set", "slice", "str"),
    "_codecs": ("encode",),  # bytes
    "collections": ("Counter",),
    "argparse": ("Namespace",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
}
_RENAMED = {"__builtin__": "builtins", "numpy._core.multiarray": "numpy.core.multiarray"}
_KNOWN = {
    ("collections", "OrderedDict"): OrderedDict,
    ("collections", "defaultdict"): _MakeDict(),
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v3"): _RebuildTypedTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch.storage", "UntypedStorage"): "UntypedStorage",
    **{("torch", name): name for name in (*STORAGES, *DTYPES)},
    **{(module, name): _Ignored for module, names in _HARMLESS.items() for name in names},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: io.BytesIO):
        super().__init__(file, encoding="utf-8")
        self.file = file
        self.storages: dict[str, _Storage] = {}

    def load(self) -> Any:
        start, end = self.file.tell(), len(self.file.getbuffer())
        for opcode, number, _ in pickletools.genops(self.file):
            if opcode.name in ("PUT", "BINPUT", "LONG_BINPUT") and number > end:  # as much memory would be allocated
                raise ValueError(f"object {number} of {end} bytes")
        self.file.seek(start)
        return super().load()

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _KNOWN[_RENAMED.get(module, module), name]
        except KeyError:
            raise _Refused(f"{module}.{name}") from None

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), *views) if kind in STORAGES and not any(views):
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
        size = count * _numbers(unpickler.storages[key]).itemsize
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


def _numbers(storage: _Storage) -> np.dtype:
    return DTYPES[STORAGES[storage.kind]]


def _materialise(tensor: _Tensor, data: Callable[[_Storage], bytes | memoryview]) -> np.ndarray:
    """The array of a tensor, after a check that it lies within its storage."""
    storage, offset, size, stride, name = tensor
    dtype = DTYPES[name]
    if not all(type(number) is int and number >= 0 for number in (storage.count, offset, *size, *stride)):
        raise ValueError(f"the tensor's sizes are {size}, its strides {stride}, its offset {offset}")
    if 0 in size:
        return np.broadcast_to(dtype.type(0), size)
    block, length = data(storage), storage.count * _numbers(storage).itemsize
    if len(block) < length:
        raise ValueError(f"storage {storage.key} is cut short: {len(block)} bytes of {length}")
    count = length // dtype.itemsize
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= count:
        raise ValueError(f"a tensor of size {size} reaches beyond its storage of {count}")
    strides = [step * dtype.itemsize for step in stride]
    return np.ndarray(size, dtype, block, offset * dtype.itemsize, strides)
