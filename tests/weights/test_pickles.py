"""Pickled NumPy arrays, read without NumPy's own functions; and pickles that would do more than hold arrays."""

import os
import pickle
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict

import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.weights.files import read_tensors, survey
from cvjax.weights.pickles import NUMBERS


def write(path, value, protocol=3):
    path.write_bytes(value if isinstance(value, bytes) else pickle.dumps(value, protocol))
    return path


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_arrays_are_those_that_were_pickled(tmp_path, protocol):
    table = np.arange(12, dtype=np.float32).reshape(3, 4)
    saved = {code: (table % 5).astype(code) for code in NUMBERS}
    saved |= {"transposed": table.T, "big-endian": table.astype(">f4"), "empty": table[:0], "scalar": np.array(2.5)}
    saved |= {"brain": table.astype(jnp.bfloat16), "slice": table[:, 1:], "eighth": table.astype(jnp.float8_e5m2)}
    found = read_tensors(write(tmp_path / "x.ckpt", {"net": saved, "epoch": 3, "name": "x"}, protocol))
    assert list(found) == [f"net.{name}" for name in saved]
    for name, value in saved.items():
        ours = found[f"net.{name}"]
        assert ours.dtype == value.dtype and ours.shape == value.shape and not ours.flags.writeable
        np.testing.assert_array_equal(ours, value, err_msg=name)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_harmless_values_beside_arrays_are_left_out(tmp_path, protocol):
    arrays = OrderedDict(w=np.arange(3.0))
    others = [np.float64(1), np.int64(1), np.str_("a"), 1j, {1, 2}, frozenset("ab"), b"x\xff", bytearray(b"x")]
    others += [slice(1, 2), Counter("ab"), np.dtype("f4"), Namespace(rate=1), None, "x", defaultdict(list)]
    saved = defaultdict(list, net=arrays, **{f"other {index}": value for index, value in enumerate(others[:-1])})
    path = write(tmp_path / "x.ckpt", saved, protocol)
    tensors, left_out = survey(path, path.read_bytes())
    assert list(tensors) == ["net.w"] and left_out == list(saved)[1:]
    np.testing.assert_array_equal(tensors["net.w"], arrays["w"])


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
    ],
)
def test_what_a_pickle_asks_for_is_refused_by_name(tmp_path, value, name):
    with pytest.raises(UserError, match=rf"x\.ckpt is not read: it asks for .*{name}.* hold tensors only\."):
        read_tensors(write(tmp_path / "x.ckpt", value))


@pytest.mark.parametrize(
    ("value", "code"), [(np.array([{}]), "O8"), (np.array([b"ab"]), "S2"), (np.zeros(2, [("a", "f4")]), "V4")]
)
def test_an_array_of_anything_but_numbers_is_named(tmp_path, value, code):
    message = rf"x\.ckpt is not read: net\.x is an array of numpy\.dtype\('{code}'\), not of numbers\.$"
    with pytest.raises(UserError, match=message):
        read_tensors(write(tmp_path / "x.ckpt", {"net": {"x": value, "y": np.ones(2)}}))


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x03cnumpy\ndtype\nN}X\x08\0\0\0__call__K\x01s\x86b.",  # sets an attribute of a stand-in
        b"\x80\x03cnumpy.core.multiarray\n_reconstruct\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x03cnumpy\nndarray\nN}X\x05\0\0\0upperK\x01s\x86b.",
        b"\x80\x03c_codecs\nencode\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x03cnumpy.core.numeric\n_frombuffer\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x03cml_dtypes\nbfloat16\n)R.",
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


@pytest.mark.parametrize("protocol", [2, 3, 5])
def test_files_with_one_changed_byte_are_read_or_refused(tmp_path, protocol):
    content = pickle.dumps({"a": {"b": np.arange(6.0).reshape(2, 3)}, "c": np.ones(2, np.int8)}, protocol)
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
