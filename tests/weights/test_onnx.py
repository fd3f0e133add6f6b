"""Initializers of ONNX files: written by the library where it is installed, and by hand where not."""

from pathlib import Path

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.weights import files
from cvjax.weights.onnx import DTYPES, _model_class, read_onnx

PATH = Path("net.onnx")


def model(**tensors):
    """A file's content, of tensors by name, each of them fields."""
    made = _model_class()(ir_version=8)
    for name, fields in tensors.items():
        made.graph.initializer.add(name=name, **fields)
    return made.SerializeToString()


def test_tensors_are_read_by_name_from_raw_bytes_and_from_numbers(tmp_path):
    raw = np.arange(6, dtype="<f4").reshape(2, 3)
    content = model(
        raw=dict(dims=(2, 3), data_type=1, raw_data=raw.tobytes()),
        listed=dict(dims=(2,), data_type=7, int64_data=(-3, 4)),
        scalar=dict(dims=(), data_type=11, double_data=(0.5,)),
        half=dict(dims=(2,), data_type=10, int32_data=(0x3C00, 0xC000)),
        empty=dict(dims=(0, 3), data_type=1),
    )
    (tmp_path / "net.ONNX").write_bytes(content)
    found = files.read_tensors(tmp_path / "net.ONNX")
    wanted = {"raw": raw, "listed": np.int64([-3, 4]), "scalar": np.float64(0.5), "half": np.float16([1, -2])}
    for name, value in (wanted | {"empty": np.zeros((0, 3), np.float32)}).items():
        np.testing.assert_array_equal(found[name], value)
        assert found[name].dtype == value.dtype and found[name].shape == value.shape


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "is not an ONNX file"),
        (b"\x00" * 40, "is damaged, or is not an ONNX file"),
        (model(), "has no initializers"),
        (model(w=dict(dims=(3,), data_type=1, raw_data=b"\0" * 8)), r"tensor 'w' is damaged: 2 numbers for .*\(3,\)"),
        (model(w=dict(dims=(2,), data_type=1, raw_data=b"\0" * 7)), r"tensor 'w' is damaged"),
        (model(w=dict(dims=(-1, -4), data_type=1, raw_data=b"\0" * 16)), r"tensor 'w' is damaged: .*\(-1, -4\)"),
        (model(w=dict(dims=(1,), data_type=8)), r"tensor 'w' has ONNX's type 8"),
        (model(w=dict(dims=(1,), data_type=1, data_location=1)), r"tensor 'w' lies in another file"),
        (model(w=dict(dims=(4,), data_type=1, raw_data=b"\0" * 16))[:-5], "is damaged"),
    ],
)
def test_files_that_cannot_be_read_are_said_to_be_so(content, words):
    with pytest.raises(UserError, match=rf"^net\.onnx.*{words}"):
        read_onnx(PATH, content)


@pytest.mark.parity
def test_every_type_is_read_as_the_library_writes_it():
    onnx = pytest.importorskip("onnx")
    values = np.array([[0, 1, 2], [3, 100, 5]])
    tensors, wanted = [], {}
    for number, (dtype, _) in DTYPES.items():
        array = values.astype(dtype)
        for raw in (True, False):
            name = f"{number}_{raw}"
            flat = array.tobytes() if raw else array.ravel().tolist()
            tensors.append(onnx.helper.make_tensor(name, number, array.shape, flat, raw=raw))
            wanted[name] = array
    graph = onnx.helper.make_graph([], "weights", [], [], initializer=tensors)
    found = read_onnx(PATH, onnx.helper.make_model(graph).SerializeToString())
    assert found.keys() == wanted.keys()
    for name, array in wanted.items():
        np.testing.assert_array_equal(found[name], array, err_msg=name)
        assert found[name].dtype == array.dtype
