"""Pickled NumPy arrays, read without NumPy's own functions; and pickles that would do more than hold arrays."""

import os
import pickle
from collections import Counter

import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.weights.files import read_tensors
from cvjax.weights.pickles import NUMBERS


def write(path, value, protocol=3):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [3, 4])
def test_arrays_are_those_that_were_pickled(tmp_path, protocol):
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    saved = {code: (table % 5).astype(code) for code in NUMBERS}
    saved |= {"transposed": table.T, "big-endian": table.astype(">f4"), "empty": table[:0], "scalar": np.array(2.5)}
    found = read_tensors(write(tmp_path / "x.ckpt", {"net": saved, "epoch": 3, "name": "x"}, protocol))
    assert list(found) == [f"net.{name}" for name in saved]
    for name, value in saved.items():
        ours = found[f"net.{name}"]
        assert ours.dtype == value.dtype and ours.shape == value.shape and not ours.flags.writeable
        np.testing.assert_array_equal(ours, value, err_msg=name)


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize(
    ("value", "name"),
    [
        ({"x": Call(os.getcwd)}, r"(posix|nt)\.getcwd"),
        ({"x": np.ones(2), "y": Call(eval, "1")}, r"builtins\.eval"),
        ({"x": np.float64(1)}, r"multiarray\.scalar"),
        ({"x": np.array([{}])}, r"numpy\.dtype\('O8'\)"),
        ({"x": np.array([b"ab"])}, r"numpy\.dtype\('S2'\)"),
        ({"x": np.zeros(2, [("a", "f4")])}, r"numpy\.dtype\('V4'\)"),
        ({"x": np.zeros(2, jnp.bfloat16)}, r"ml_dtypes.*bfloat16"),
        ({"x": complex(1)}, r"builtins\.complex"),
    ],
)
def test_what_a_pickle_asks_for_is_refused_by_name(tmp_path, value, name):
    with pytest.raises(UserError, match=rf"x\.ckpt is not read: it asks for .*{name}.* hold tensors only\."):
        read_tensors(write(tmp_path / "x.ckpt", value))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x03cnumpy\ndtype\nN}X\x08\0\0\0__call__K\x01s\x86b.",  # sets an attribute of a stand-in
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x03cnumpy\nndarray\nN}X\x05\0\0\0upperK\x01s\x86b.",
        b"\x80\x03cnumpy\nndarray\n)R.",  # calls what cannot be called
        b"\x80\x03}r\xff\xff\xff\x7f.",  # an object with a number for which 16 GB would be allocated
        b"\x80\x03B\xff\xff\xff\x7f.",  # 2 GB of bytes that are not there
        b"\x80\x04\x8e\xff\xff\xff\xff\xff\xff\xff\x7f.",
        b"\x80\x03X\x01\0\0\0aQ.",  # an object kept elsewhere
        b"\x80\x03}.",
        b"\x80",
    ],
)
def test_programs_that_do_anything_else_are_refused_and_change_nothing(tmp_path, program):
    with pytest.raises(UserError, match=r"x\.ckpt (is not read|is damaged|holds no dict of tensors)"):
        read_tensors(write(tmp_path / "x.ckpt", program))
    test_arrays_are_those_that_were_pickled(tmp_path, 3)


def state_of(shape, code="f4", data=bytes(24), order="<"):
    """The pickle of {"x": array} with the state of its own choice."""
    part = lambda value: pickle.dumps(value, 3)[2:-1]  # noqa: E731 (without head and stop)
    dtype = b"cnumpy\ndtype\n" + part((code, False, True)) + b"R" + part((3, order, None, None, None, -1, -1, 0)) + b"b"
    made = b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85C\x01b\x87R"
    return b"\x80\x03}X\x01\0\0\0x" + made + b"(K\x01" + part(shape) + dtype + part(False) + part(data) + b"tbs."


def test_arrays_without_the_bytes_of_their_shape_are_refused(tmp_path):
    assert read_tensors(write(tmp_path / "x.ckpt", state_of((2, 3))))["x"].shape == (2, 3)
    for options in (
        dict(shape=(2, 4)),
        dict(shape=(2, 2)),
        dict(shape=(-2, -3)),
        dict(shape=(2.0, 3)),
        dict(shape=(10**10, 10**10)),
        dict(shape=(2, 3), data=[1] * 24),
        dict(shape=(2, 3), order="x"),
        dict(shape=6),
    ):
        with pytest.raises(UserError, match=r"x\.ckpt is damaged"):
            read_tensors(write(tmp_path / "x.ckpt", state_of(**options)))
    with pytest.raises(UserError, match=r"two tensors are called a\.b"):
        read_tensors(write(tmp_path / "x.ckpt", {"a.b": np.ones(1), "a": {"b": np.ones(1)}}))


def test_files_with_one_changed_byte_are_read_or_refused(tmp_path):
    content = pickle.dumps({"a": {"b": np.arange(6.0).reshape(2, 3)}, "c": np.ones(2, np.int8)}, 3)
    random, outcomes = np.random.default_rng(0), Counter()
    for place, value in zip(random.integers(len(content), size=300), random.integers(1, 256, 300), strict=True):
        changed = bytearray(content)
        changed[place] ^= value
        try:
            read_tensors(write(tmp_path / "x.ckpt", bytes(changed)))
            outcomes["read"] += 1
        except UserError:
            outcomes["refused"] += 1
    assert len(outcomes) == 2
