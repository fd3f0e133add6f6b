"""Tensors of files that torch wrote, read as torch reads them; and files that would do more than hold tensors."""

import io
import json
import os
import pickle
import re
import struct
import zipfile
from argparse import Namespace
from collections import Counter, OrderedDict, defaultdict

import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from cvjax.errors import UserError
from cvjax.weights import files
from cvjax.weights.files import read_tensors


@pytest.fixture(scope="module")
def torch():
    return pytest.importorskip("torch")


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_tensors_are_those_of_torch(torch, tmp_path, zipped):
    table = torch.arange(12.0).reshape(3, 4)
    saved = {
        "whole": table,
        "transposed": table.T,
        "part": table[1:, ::2],
        "expanded": table[:, :1].expand(3, 5),
        "half": table.half(),
        "brain": (table / 3).bfloat16(),
        "double": table.double(),
        "bytes": table.to(torch.uint8),
        "long": -table.long(),
        "truth": table > 3,
        "complex": torch.complex(table, -table),
        "half complex": torch.complex(table, -table).to(torch.complex32).T,
        "conjugated": torch.complex(table, -table).conj().T,
        "negated": torch.complex(table, table).conj().imag,
        "buffer": torch.nn.Buffer(table),
        "eighth": table.to(torch.float8_e4m3fn),
        "wide eighth": table.T.to(torch.float8_e5m2),
        "unsigned": (table * 5000).to(torch.uint16)[1:],
        "parameter": torch.nn.Parameter(table[0]),
        "scalar": torch.tensor(2.5),
        "empty": torch.zeros(0, 3),
    }
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors = read_tensors(tmp_path / "x.pth")
    assert list(tensors) == list(saved)
    for name, value in saved.items():
        ours, expected = tensors[name], value.detach()
        kind = str(expected.dtype).removeprefix("torch.").replace("complex32", "complex64")
        assert ours.dtype == jnp.dtype(kind) and not ours.flags.writeable
        np.testing.assert_array_equal(ours.astype(complex), expected.to(torch.complex128).numpy(), err_msg=name)
    assert np.shares_memory(tensors["whole"], tensors["transposed"]) and tensors["expanded"].strides[1] == 0
    torch.save({"x": torch.tensor([1 + 2j]).expand(2**40).conj()}, tmp_path / "vast.pth")  # a view takes no room
    assert read_tensors(tmp_path / "vast.pth")["x"][7] == 1 - 2j


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_a_state_dict_keeps_its_names_and_what_is_no_tensor_is_left_out(torch, tmp_path, zipped):
    net = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.BatchNorm1d(3))
    state = net.state_dict()  # an OrderedDict with an attribute
    torch.save({"model": state, "epoch": 3, "losses": [0.5, None], "seen": {"again": state}}, tmp_path / "x.pth",
               _use_new_zipfile_serialization=zipped)  # fmt: skip
    tensors = read_tensors(tmp_path / "x.pth")
    assert list(tensors) == [f"model.{name}" for name in state]
    np.testing.assert_array_equal(tensors["model.0.weight"], state["0.weight"].numpy())
    assert tensors["model.1.num_batches_tracked"].shape == ()


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_harmless_values_beside_tensors_are_left_out(torch, tmp_path, zipped):
    parameter = torch.nn.Parameter(torch.ones(2))
    tagged = torch.ones(2)
    parameter.tag, tagged.tag = 1, "x"  # attributes of their own
    state = defaultdict(list, weight=torch.arange(3.0), parameter=parameter, tagged=tagged)
    state |= {
        "size": torch.Size([1, 2]),
        "device": torch.device("cpu"),
        "dtype": [torch.float32, torch.float8_e5m2, torch.complex32, torch.qint8, torch.uint4, torch.float4_e2m1fn_x2],
        "scheme": torch.per_tensor_affine,
        "layout": torch.strided,
        "set": {1, 2},
        "frozen": frozenset("ab"),
        "counter": Counter("abc"),
        "bytes": b"x\xff",
        "none": b"",
        "bytearray": bytearray(b"x"),
        "complex": 2j,
        "scalar": np.float64(3),
        "array": np.arange(3),
        "arguments": Namespace(rate=0.1, inner=Namespace(depth=3)),
    }
    torch.save(state, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    tensors, left_out = files.survey(tmp_path / "x.pth", (tmp_path / "x.pth").read_bytes())
    assert list(tensors) == ["weight", "parameter", "tagged"] and left_out == list(state)[3:]
    np.testing.assert_array_equal(tensors["weight"], [0, 1, 2])
    np.testing.assert_array_equal(tensors["parameter"], [1, 1])


@pytest.mark.parity
@pytest.mark.parametrize("zipped", [True, False])
def test_files_with_one_changed_byte_are_right_or_refused(torch, tmp_path, zipped):
    """A zip has check sums; of the older format, and of safetensors, changed numbers are not to be noticed."""
    saved = {"a": torch.arange(6.0).reshape(2, 3), "b": [torch.ones(2).half(), {"c": torch.tensor([7])}], "s": {1}}
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    right, outcomes = read_tensors(tmp_path / "x.pth"), Counter()
    for changed in one_byte_changed((tmp_path / "x.pth").read_bytes(), 300):
        (tmp_path / "y.pth").write_bytes(changed)
        try:
            found = read_tensors(tmp_path / "y.pth")
        except UserError:
            outcomes["refused"] += 1
            continue
        outcomes["read"] += 1
        if zipped:
            assert found.keys() == right.keys()
            for name, value in right.items():
                np.testing.assert_array_equal(found[name], value)
    assert len(outcomes) == 2


def one_byte_changed(content, count):
    random = np.random.default_rng(0)
    for place, value in zip(random.integers(len(content), size=count), random.integers(1, 256, count), strict=True):
        changed = bytearray(content)
        changed[place] ^= value
        yield bytes(changed)


def test_safetensors_with_one_changed_byte_are_read_or_refused(tmp_path):
    content = safetensors.numpy.save({"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, np.int8)})
    outcomes = Counter()
    for changed in one_byte_changed(content, 300):
        (tmp_path / "x.safetensors").write_bytes(changed)
        try:
            outcomes[len(read_tensors(tmp_path / "x.safetensors"))] += 1
        except UserError:
            outcomes["refused"] += 1
    assert outcomes.keys() == {2, "refused"}


def write_safetensors(path, kind, shape, content):
    header = json.dumps({"w": {"dtype": kind, "shape": shape, "data_offsets": [0, len(content)]}}).encode()
    header += b" " * (-len(header) % 8)
    path.write_bytes(struct.pack("<Q", len(header)) + header + content)
    return path


@pytest.mark.parametrize(
    ("kind", "dtype"),
    [("F8_E4M3", jnp.float8_e4m3fn), ("F8_E5M2", jnp.float8_e5m2), ("BF16", jnp.bfloat16), ("U16", np.uint16)],
)
def test_safetensors_of_types_that_numpy_lacks(tmp_path, kind, dtype):
    values = np.array([[1, 2], [3, 4]]).astype(dtype)
    found = read_tensors(write_safetensors(tmp_path / "W.SafeTensors", kind, [2, 2], values.tobytes()))
    assert found["w"].dtype == dtype
    np.testing.assert_array_equal(found["w"], values)


def test_safetensors_of_four_bits_are_named(tmp_path):
    with pytest.raises(UserError, match=r"x\.safetensors holds tensors of types that NumPy has not: w of F4"):
        read_tensors(write_safetensors(tmp_path / "x.safetensors", "F4", [4], b"\x12\x34"))


def test_safetensors(tmp_path):
    saved = {"a": np.arange(6, dtype=np.float32).reshape(2, 3), "b": np.ones(3, jnp.bfloat16)}
    safetensors.numpy.save_file(saved, tmp_path / "x.safetensors")
    tensors = read_tensors(tmp_path / "x.safetensors")
    assert tensors.keys() == saved.keys() and tensors["b"].dtype == jnp.bfloat16
    np.testing.assert_array_equal(tensors["a"], saved["a"])
    (tmp_path / "broken.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0nonsense")
    with pytest.raises(UserError, match=r"broken\.safetensors is no safetensors file"):
        read_tensors(tmp_path / "broken.safetensors")


# --- files made by hand -------------------------------------------------------------------------------------------


def write_zip(path, program, compression=zipfile.ZIP_STORED, **storages):
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        for key, content in storages.items():
            archive.writestr(f"archive/data/{key.removeprefix('_')}", content)
    return path


def write_legacy(path, program):
    head = [pickle.dumps(value, 2) for value in (0x1950A86A20F9469CFC6C, 1001, {"little_endian": True})]
    path.write_bytes(b"".join(head) + program + pickle.dumps([], 2))
    return path


def test_tensors_of_torch_before_0_4(tmp_path):
    program = tensor_program().replace(b"_rebuild_tensor_v2", b"_rebuild_tensor")
    program = program.replace(pickle.dumps(False, 2)[2:-1] + b"ccollections\nOrderedDict\n)R", b"")
    assert b"OrderedDict" not in program
    tensors = read_tensors(write_zip(tmp_path / "x.pth", program, _0=NUMBERS))
    np.testing.assert_array_equal(tensors["x"], np.arange(6).reshape(2, 3))


def tensor_program(count=6, offset=0, size=(2, 3), stride=(3, 1), kind="FloatStorage", key="0"):
    """The pickle of {"x": tensor}, instruction by instruction."""
    parts = [pickle.dumps(value, 2)[2:-1] for value in (offset, size, stride, False)]  # without head and stop
    storage = b"(X\x07\0\0\0storage" + b"ctorch\n" + kind.encode() + b"\n" + pickle.dumps(key, 2)[2:-1]
    storage += b"X\x03\0\0\0cpu" + pickle.dumps(count, 2)[2:-1] + b"tQ"
    arguments = b"(" + storage + b"".join(parts) + b"ccollections\nOrderedDict\n)Rt"
    return b"\x80\x02}X\x01\0\0\0xctorch._utils\n_rebuild_tensor_v2\n" + arguments + b"Rs."


NUMBERS = np.arange(6, dtype="<f4").tobytes()


def test_the_program_made_by_hand_is_a_tensor(tmp_path):
    tensors = read_tensors(write_zip(tmp_path / "x.pth", tensor_program(), _0=NUMBERS))
    np.testing.assert_array_equal(tensors["x"], np.arange(6).reshape(2, 3))


class Call:
    """Pickled, it is a call."""

    def __init__(self, function, *arguments):
        self.function, self.arguments = function, arguments

    def __reduce__(self):
        return self.function, self.arguments


@pytest.mark.parametrize("write", [write_zip, write_legacy])
@pytest.mark.parametrize("protocol", [0, 2, 4, 5])
def test_what_a_pickle_calls_is_not_called_but_named(tmp_path, write, protocol):
    victim = tmp_path / "written by the pickle"
    for call, name in [
        (Call(os.mkdir, str(victim)), "mkdir"),
        (Call(eval, f"__import__('os').mkdir({str(victim)!r})"), r"builtins\.eval|__builtin__\.eval"),
        (Call(getattr, {}, "clear"), r"getattr"),
        (OrderedDict(a=Call(os.mkdir, str(victim))), "mkdir"),
    ]:
        path = write(tmp_path / "x.pth", pickle.dumps({"x": call}, protocol))
        with pytest.raises(UserError, match=rf"x\.pth is not read: it asks for .*({name}).*state_dict"):
            read_tensors(path)
        assert not victim.exists()


@pytest.mark.parametrize(
    "program",
    [
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\n}X\x08\0\0\0__call__K\x01sb.",  # sets an attribute
        b"\x80\x02ctorch._utils\n_rebuild_tensor_v2\nN}X\x08\0\0\0__call__K\x01s\x86b.",  # the same by setattr
        b"\x80\x02ctorch._utils\n_rebuild_parameter\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x02ccollections\nOrderedDict\nN}X\x05\0\0\0itemsK\x01s\x86b.",
        b"\x80\x02ctorch\nFloatStorage\nN}X\x05\0\0\0upperK\x01s\x86b.",
        b"\x80\x02ctorch._utils\n_rebuild_qtensor\nN}X\x06\0\0\0reasonK\x01s\x86b.",
        b"\x80\x02c_codecs\nencode\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x02ctorch\nFloatStorage\n)R.",  # calls what cannot be called
        b"\x80\x02X\x01\0\0\0aQ.",  # a storage that is none
        b"\x80\x02(X\x07\0\0\0storage(lX\x01\0\0\x000X\x03\0\0\0cpuK\x01tQ.",
        b"\x80\x02ctorch\nSize\nN}X\x08\0\0\0__call__K\x01s\x86b.",
        b"\x80\x02ctorch\nfloat32\nN}X\x05\0\0\0upperK\x01s\x86b.",
        b"\x80\x02}r\xff\xff\xff\x7f.",  # the memo of an object with a number that takes 16 GB
        b"\x80\x02\x95",
        b"",
    ],
)
def test_programs_that_do_anything_else_are_refused_and_change_nothing(tmp_path, program):
    with pytest.raises(UserError, match=r"x\.pth (is not read|is damaged|holds no dict of tensors)"):
        read_tensors(write_zip(tmp_path / "x.pth", program))
    test_the_program_made_by_hand_is_a_tensor(tmp_path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (dict(count=7), "cut short: 24 bytes of 28"),
        (dict(size=(2, 4)), "beyond its storage of 6"),
        (dict(offset=1), "beyond its storage"),
        (dict(offset=-1), "its offset -1"),
        (dict(stride=(-3, 1)), r"its strides \(-3, 1\)"),
        (dict(stride=(10**12, 1)), "beyond its storage"),
        (dict(stride=(3,)), "shorter|longer"),
        (dict(size=(2.0, 3)), "sizes"),
        (dict(size=(10**15, 10**15), stride=(0, 0)), "too big|maximum|range|overflow|large"),
        (dict(key="1"), "data/1"),
        (dict(kind="QInt8Storage"), r"x is of torch\.qint8, which NumPy lacks; save it in another type\.$"),
        (dict(kind="QInt9Storage"), r"asks for torch\.QInt9Storage"),
    ],
)
def test_tensors_that_reach_out_of_their_storage_are_refused(tmp_path, options, message):
    with pytest.raises(UserError, match=message):
        read_tensors(write_zip(tmp_path / "x.pth", tensor_program(**options), _0=NUMBERS))


def test_what_contains_itself_or_much_too_much_is_looked_into_once(tmp_path):
    itself = {}
    itself["itself"] = itself
    with pytest.raises(UserError, match="no dict of tensors"):
        read_tensors(write_zip(tmp_path / "x.pth", pickle.dumps(itself)))
    node = [1.0]
    for _ in range(60):
        node = [node] * 10  # 10^60 paths to the end of it
    with pytest.raises(UserError, match="no dict of tensors"):
        read_tensors(write_zip(tmp_path / "x.pth", pickle.dumps({"x": node})))


def test_other_files_are_told_from_damaged_ones(tmp_path):
    (tmp_path / "picture.pth").write_bytes(b"GIF89a" + bytes(100))
    with pytest.raises(UserError, match="is neither"):
        read_tensors(tmp_path / "picture.pth")
    with pytest.raises(UserError, match=r"weight\.pth: .*Did you mean 'weights\.pth'\?"):
        (tmp_path / "weights.pth").touch()
        read_tensors(tmp_path / "weight.pth")
    with pytest.raises(UserError, match=r"weight\.safetensors: "):
        read_tensors(tmp_path / "weight.safetensors")
    with pytest.raises(UserError, match="compressed"):
        read_tensors(write_zip(tmp_path / "x.pth", tensor_program(), zipfile.ZIP_DEFLATED, _0=NUMBERS))
    whole = write_zip(tmp_path / "x.pth", tensor_program(), _0=NUMBERS).read_bytes()
    (tmp_path / "y.pth").write_bytes(whole.replace(NUMBERS, NUMBERS[:-1] + b"\x01"))
    with pytest.raises(UserError, match=r"y\.pth is damaged.*CRC"):
        read_tensors(tmp_path / "y.pth")
    (tmp_path / "z.pth").write_bytes(whole[:-30])
    with pytest.raises(UserError, match=r"z\.pth is damaged"):
        read_tensors(tmp_path / "z.pth")
    with zipfile.ZipFile(tmp_path / "x.pth", "a") as archive:
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(UserError, match="big-endian"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parity
def test_a_legacy_file_that_is_cut_short(torch, tmp_path):
    torch.save({"x": torch.arange(6.0)}, tmp_path / "x.pth", _use_new_zipfile_serialization=False)
    content = (tmp_path / "x.pth").read_bytes()
    assert content.endswith(struct.pack("<q", 6) + NUMBERS) and content.startswith(files.LEGACY)
    (tmp_path / "x.pth").write_bytes(content[:-4])
    with pytest.raises(UserError, match="cut short: 20 bytes of 24"):
        read_tensors(tmp_path / "x.pth")


@pytest.mark.parity
@pytest.mark.filterwarnings("ignore")  # torch's, of what it is about to give up
@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda torch, x: x.to_sparse(), "is sparse; save its .to_dense()"),
        (lambda torch, x: torch.quantize_per_tensor(x, 0.1, 0, torch.qint8), "is quantised; save its .dequantize()"),
        (lambda torch, x: torch.nn.Parameter(x.to("meta")), "is of torch's meta device and has no values"),
        (lambda torch, x: torch.nested.nested_tensor([x[0], x[1, :2]]), "is nested; save its .unbind()"),
        (lambda torch, x: x.to(torch.uint8).view(torch.float4_e2m1fn_x2), "is of torch.float4_e2m1fn_x2, which NumPy"),
    ],
)
def test_a_tensor_that_no_array_can_be_is_named(torch, tmp_path, zipped, make, reason):
    table = torch.arange(6.0).reshape(2, 3)
    saved = {"net": {"a": table, "b": make(torch, table)}}
    torch.save(saved, tmp_path / "x.pth", _use_new_zipfile_serialization=zipped)
    with pytest.raises(UserError, match=re.escape(f"x.pth is not read: net.b {reason}")) as found:
        read_tensors(tmp_path / "x.pth")
    assert "code" not in str(found.value) and "state_dict" not in str(found.value)


def from_type(function):
    """The pickle of {"x": tensor with attributes}, made by a function."""
    call = b"}X\x01\0\0\0xctorch._tensor\n_rebuild_from_type_v2\n"
    return b"\x80\x02" + call + b"(" + function + b"ctorch\nTensor\n(X\x01\0\0\0at}tRs."


@pytest.mark.parametrize(
    ("function", "name"),
    [
        (b"cposix\nmkdir\n", r"posix\.mkdir"),
        (b"ccollections\nOrderedDict\n", "a tensor made by .*OrderedDict"),
        (b"ctorch\nSize\n", "a tensor made by .*Ignored"),
    ],
)
def test_a_tensor_with_attributes_is_made_by_no_other_function(tmp_path, function, name):
    with pytest.raises(UserError, match=f"x.pth is not read: it asks for {name}"):
        read_tensors(write_zip(tmp_path / "x.pth", from_type(function)))


@pytest.mark.parity
def test_whole_modules_and_single_tensors_are_refused(torch, tmp_path):
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(UserError, match=r"asks for torch\.nn\.modules\.linear\.Linear"):
        read_tensors(tmp_path / "x.pth")
    buffer = io.BytesIO()
    torch.save(torch.ones(2), buffer)
    (tmp_path / "x.pth").write_bytes(buffer.getvalue())
    with pytest.raises(UserError, match="no dict of tensors"):
        read_tensors(tmp_path / "x.pth")
