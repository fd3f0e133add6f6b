"""Tensors of a file, read without running anything in it: `.pth`, `.safetensors`, `.npz`, `.onnx`, pickled arrays.

A `.pth` is a pickle: a program that names functions and calls them. There are stand-ins for torch's few functions that
put tensors together, and for harmless values that lie beside tensors; all others are refused. Torch itself is not
needed. Both of its formats are read, the zip archive of 1.6 (2020) and later and the one before.
"""

import io
import pickle
import zipfile
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import jax.numpy as jnp
import numpy as np
import safetensors
from jaxtyping import Shaped

from cvjax.errors import UserError, suggest_beside
from cvjax.weights.npz import read_npz
from cvjax.weights.onnx import read_onnx
from cvjax.weights.pickles import (
    HARMLESS,
    Ignored,
    Refused,
    Unpickler,
    Unreadable,
    Unrepresented,
    find_leaves,
    read_arrays,
)

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
    "complex32": np.dtype([("real", "<f2"), ("imag", "<f2")]),  # read as complex64
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
QUANTISED = {
    "QInt8Storage": "qint8",
    "QUInt8Storage": "quint8",
    "QInt32Storage": "qint32",
    "QUInt4x2Storage": "quint4x2",
    "QUInt2x4Storage": "quint2x4",
}
OTHER_DTYPES = (  # that NumPy lacks
    *QUANTISED.values(),
    *(f"{sign}int{bits}" for sign in ("", "u") for bits in range(1, 8)),
    *("bits8", "bits16", "bits1x8", "bits2x4", "bits4x2", "float4_e2m1fn_x2"),
)
QUANTISERS = ("per_tensor_affine", "per_channel_affine", "per_tensor_symmetric", "per_channel_symmetric")
QUANTISERS += ("per_channel_affine_float_qparams",)
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
    """Reads all tensors of a file, `.safetensors`, `.npz`, `.onnx`, `.pth` or a pickle of NumPy arrays.

    The last two hold a dict of tensors, such as a state dict, or dicts of dicts. Returns {name: array}, in the types of
    the file (complex32 as complex64); the names of dicts within dicts are joined by dots, and what is not a tensor is
    left out. The arrays of a pickle are read-only, and share memory where the tensors did.

    Raises a UserError for no such file, none of these formats, a damaged file, one that calls anything else, or one
    with a tensor that no NumPy array can be.
    """
    path = Path(path).expanduser()
    return decode(path, read_bytes(path))


def read_bytes(path: Path) -> bytes:
    """Returns the content of a file; raises a UserError if it cannot be read."""
    try:
        return path.read_bytes()
    except OSError as error:
        raise UserError(f"{path}: {error.strerror or 'no such file'}. {suggest_beside(path)}".rstrip()) from error


def find_format(path: Path, content: bytes) -> str:
    """Returns the format of a file, its suffix or a key of `PICKLED`; raises a UserError if it has none."""
    if path.suffix.lower() in (".safetensors", ".npz", ".onnx"):
        return path.suffix.lower().removeprefix(".")
    for name, kind in PICKLED.items():
        if content.startswith(kind.start):
            return name
    raise UserError(
        f"{path} is neither a .safetensors, .npz or .onnx file nor one that torch.save wrote, nor a pickle of arrays."
    )


def decode(path: Path, content: bytes) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Returns the tensors in the content of a file, which is not read again, as `read_tensors` does."""
    return survey(path, content)[0]


def survey(path: Path, content: bytes) -> tuple[dict[str, Shaped[np.ndarray, "..."]], list[str]]:
    """Returns the tensors as `decode` does, and the names of what is left out because it is no tensor."""
    name = find_format(path, content)
    if name == "safetensors":
        return _read_safetensors(path, content), []
    if name in ("npz", "onnx"):
        return {"npz": read_npz, "onnx": read_onnx}[name](path, content), []
    kind = PICKLED[name]
    try:
        tensors, others = kind.read(content)
    except Refused as refused:
        raise UserError(
            f"{path} is not read: it asks for {refused}, and a file that may call that may run any code. It has to "
            f"hold tensors only{kind.advice and f': in torch, {kind.advice} writes such a file'}."
        ) from None
    except Unreadable as unreadable:
        raise UserError(f"{path} is not read: {unreadable}.") from None
    except Exception as error:  # whatever a damaged or a made-up file leads to
        raise UserError(f"{path} is damaged, or was not written by {kind.writer}: {error!r}") from error
    if not tensors or "" in tensors:
        raise UserError(f"{path} holds no dict of tensors{kind.advice and f': {kind.advice} writes one'}.")
    return tensors, others


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


class _Storage(NamedTuple):
    kind: str
    key: str
    count: int


_LEFT_OUT = {
    "torch": ("Size", "device"),
    "torch.serialization": ("_get_layout",),
    "numpy": ("dtype", "ndarray"),
    "numpy.core.multiarray": ("_reconstruct", "scalar"),
    "numpy.core.numeric": ("_frombuffer",),
}


class _Tensor(NamedTuple):
    storage: _Storage
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]
    dtype: str
    conj: bool = False  # of a view that torch has yet to conjugate, or to negate
    neg: bool = False


class _Rebuild:
    """Stands in for a function of torch that makes a tensor."""

    __slots__ = ()


class _RebuildTensor(_Rebuild):
    """Stands in for torch._utils._rebuild_tensor (before torch 0.4) and _rebuild_tensor_v2."""

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, requires_grad=False, hooks=None, metadata=None) -> Any:
        dtype = STORAGES.get(storage.kind) or QUANTISED[storage.kind]
        return _RebuildTypedTensor()(storage, offset, size, stride, requires_grad, hooks, dtype, metadata)


class _RebuildTypedTensor(_Rebuild):
    """Stands in for torch._utils._rebuild_tensor_v3, of types that have no storage of their own."""

    __slots__ = ()

    def __call__(self, storage, offset, size, stride, requires_grad, hooks, dtype, metadata=None) -> Any:
        views = metadata or {}
        if views.keys() - {"conj", "neg"}:
            return Unrepresented(f"has {metadata!r:.80}, which is not known here")
        if dtype not in DTYPES:
            return Unrepresented(f"is of torch.{dtype}, which NumPy lacks; save it in another type")
        return _Tensor(storage, offset, size, stride, dtype, **views)


class _RebuildParameter(_Rebuild):
    """Stands in for torch._utils._rebuild_parameter and _rebuild_parameter_with_state, and for a tensor's move."""

    __slots__ = ()

    def __call__(self, data, *others) -> Any:
        return data


class _RebuildNone(NamedTuple):
    """Stands in for a function that makes a tensor which no array can be."""

    reason: str

    def __call__(self, *arguments) -> Unrepresented:
        return Unrepresented(self.reason)


class _RebuildFromType(_Rebuild):
    """Stands in for torch._tensor._rebuild_from_type_v2: a tensor with attributes, which are left out, or a buffer."""

    __slots__ = ()

    def __call__(self, function, kind, arguments, state) -> Any:
        if not isinstance(function, (_Rebuild, _RebuildNone)):
            raise Refused(f"a tensor made by {function!r:.40}")
        return function(*arguments)


_KNOWN = {
    **HARMLESS,
    ("torch._utils", "_rebuild_tensor"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v2"): _RebuildTensor(),
    ("torch._utils", "_rebuild_tensor_v3"): _RebuildTypedTensor(),
    ("torch._utils", "_rebuild_parameter"): _RebuildParameter(),
    ("torch._utils", "_rebuild_parameter_with_state"): _RebuildParameter(),
    ("torch._utils", "_rebuild_device_tensor_from_cpu_tensor"): _RebuildParameter(),
    ("torch._tensor", "_rebuild_from_type_v2"): _RebuildFromType(),
    ("torch._utils", "_rebuild_sparse_tensor"): _RebuildNone("is sparse; save its .to_dense()"),
    ("torch._utils", "_rebuild_qtensor"): _RebuildNone("is quantised; save its .dequantize()"),
    ("torch._utils", "_rebuild_nested_tensor"): _RebuildNone("is nested; save its .unbind()"),
    ("torch._utils", "_rebuild_meta_tensor_no_storage"): _RebuildNone(
        "is of torch's meta device and has no values; save it from another device"
    ),
    ("torch._utils", "_rebuild_device_tensor_from_numpy"): _RebuildNone("is of a device of its own; save its .cpu()"),
    ("torch.storage", "UntypedStorage"): "UntypedStorage",
    ("torch.storage", "TypedStorage"): "TypedStorage",
    ("torch.nn.parameter", "Parameter"): _RebuildParameter(),
    **{("torch", name): name for name in (*STORAGES, *QUANTISED, *DTYPES, *OTHER_DTYPES, *QUANTISERS, "Tensor")},
    **{(module, name): Ignored for module, names in _LEFT_OUT.items() for name in names},
}


class _Unpickler(Unpickler):
    def __init__(self, file: io.BytesIO):
        super().__init__(file, _KNOWN)
        self.storages: dict[str, _Storage] = {}

    def persistent_load(self, pid: Any) -> _Storage:
        match pid:
            case ("storage", str(kind), str(key), str(), int(count), *views) if kind in (
                *STORAGES,
                *QUANTISED,
            ) and not any(views):
                return self.storages.setdefault(key, _Storage(kind, key, count))
        raise Refused(f"the storage {pid!r:.80}")


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
    tree = unpickler.load()

    @cache
    def blocks() -> dict[str, memoryview]:
        found = {}
        for key in _Unpickler(file).load():
            count = int.from_bytes(file.read(8), "little")
            size = count * _numbers(unpickler.storages[key]).itemsize
            found[key] = memoryview(content)[file.tell() : file.tell() + size]
            file.seek(size, io.SEEK_CUR)
        return found

    return tree, lambda storage: blocks()[storage.key]


def _numbers(storage: _Storage) -> np.dtype:
    return DTYPES[STORAGES[storage.kind]]


def _materialise(tensor: _Tensor, data: Callable[[_Storage], bytes | memoryview]) -> np.ndarray:
    """The array of a tensor, after a check that it lies within its storage."""
    storage, offset, size, stride, name, conj, neg = tensor
    dtype = DTYPES[name]
    if not all(type(number) is int and number >= 0 for number in (storage.count, offset, *size, *stride)):
        raise ValueError(f"the tensor's sizes are {size}, its strides {stride}, its offset {offset}")
    if 0 in size:
        return np.broadcast_to(np.zeros((), np.complex64 if name == "complex32" else dtype), size)
    block, length = data(storage), storage.count * _numbers(storage).itemsize
    if len(block) < length:
        raise ValueError(f"storage {storage.key} is cut short: {len(block)} bytes of {length}")
    count = length // dtype.itemsize
    if offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True)) >= count:
        raise ValueError(f"a tensor of size {size} reaches beyond its storage of {count}")
    numbers = np.frombuffer(block, dtype, count)  # a view of them takes no room, however large it is
    numbers = numbers["real"] + np.complex64(1j) * numbers["imag"] if name == "complex32" else numbers
    numbers = numbers.conj() if conj else numbers
    numbers = -numbers if neg else numbers
    strides = [step * numbers.itemsize for step in stride]
    array = np.ndarray(size, numbers.dtype, numbers, offset * numbers.itemsize, strides)
    array.flags.writeable = False
    return array


def _read_torch(reader: Callable, content: bytes) -> tuple[dict[str, np.ndarray], list[str]]:
    tree, data = reader(content)
    tensors, others = find_leaves(tree, _Tensor)
    return {name: _materialise(tensor, data) for name, tensor in tensors.items()}, others


class _Format(NamedTuple):
    start: bytes  # of a file
    read: Callable[[bytes], tuple[dict[str, np.ndarray], list[str]]]
    writer: str
    advice: str  # how to write a file with nothing but tensors


_SAVING = "torch.save(model.state_dict(), FILE)"
PICKLED = {
    "torch (1.6 or later)": _Format(b"PK", partial(_read_torch, _read_zip), "torch.save", _SAVING),
    "torch (before 1.6)": _Format(LEGACY, partial(_read_torch, _read_legacy), "torch.save", _SAVING),
    "pickle of NumPy arrays": _Format(b"\x80", read_arrays, "pickle.dump", ""),
}
