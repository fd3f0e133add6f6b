"""Checkpoints know when they are broken, wherever a byte has changed, and when they could not be written."""

import errno
import json
import os

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.checkpoint import CHECKSUMS, Checkpoints, read_state
from cvjax.core import State
from cvjax.errors import UserError

STATE = State(
    step=jnp.int32(0), params={"net": jax.random.normal(jax.random.key(0), (64, 64))}, opt={"n": jnp.int32(1)}, extra={}
)
WANTED = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), STATE)


def save(folder, *steps):
    checkpoints = Checkpoints(folder, keep=9)
    for step in steps:
        checkpoints.save(step, STATE, {"next": step}, {"fid": 1.0})
    checkpoints.close()


def position(folder):
    """The step that is restored, and what was said meanwhile."""
    said = []
    checkpoints = Checkpoints(folder, keep=9, say=said.append)
    state, data = checkpoints.restore(WANTED)
    checkpoints.close()
    assert np.array_equal(state.params["net"], STATE.params["net"])
    return data["next"], said


def test_a_folder_that_orbax_cannot_write_to_is_refused(tmp_path):
    folder = tmp_path / os.fsdecode(b"caf\xe9")
    folder.mkdir()
    for use in (lambda: Checkpoints(folder), lambda: read_state(folder, WANTED)):
        with pytest.raises(UserError, match=r"caf\\xe9 is not UTF-8, and Orbax"):
            use()


def files(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


def test_a_byte_that_changed_in_any_file_is_noticed(tmp_path):
    save(tmp_path, 1, 2)
    assert position(tmp_path) == (2, [])
    for file in files(tmp_path / "2"):
        content = file.read_bytes()
        broken = bytearray(content)
        broken[len(broken) // 2] ^= 1
        file.write_bytes(broken)
        with pytest.raises(UserError, match=r"checkpoint 2 in .* is broken.* Step 1 is intact"):
            read_state(tmp_path, WANTED)
        file.write_bytes(content)
    read_state(tmp_path, WANTED)


@pytest.mark.parametrize("spoil", ["cut", "emptied", "removed"])
@pytest.mark.parametrize("part", ["state", "metrics", CHECKSUMS])
def test_a_broken_checkpoint_is_moved_aside_and_its_step_can_be_saved_again(tmp_path, spoil, part):
    save(tmp_path, 1, 2)
    place = tmp_path / "2" / part
    file = place if place.is_file() else max(files(place), key=lambda path: path.stat().st_size)
    if spoil == "removed":
        file.unlink()
    else:
        os.truncate(file, file.stat().st_size // 2 if spoil == "cut" else 0)
    if (spoil, part) == ("removed", CHECKSUMS):  # the run died before it had written them: nothing is wrong with it
        assert position(tmp_path) == (2, [])
        return
    step, (line,) = position(tmp_path)
    assert step == 1
    assert line.startswith("checkpoint 2 is broken (") and line.endswith("continuing from step 1")
    assert (tmp_path / "2.broken").is_dir() and not (tmp_path / "2").exists()
    save(tmp_path, 2)
    assert position(tmp_path) == (2, [])


def test_a_checkpoint_without_checksums_that_cannot_be_read_is_broken_too(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "2" / CHECKSUMS).unlink()
    os.truncate(tmp_path / "2" / "state" / "manifest.ocdbt", 10)
    step, (line,) = position(tmp_path)
    assert step == 1 and "checkpoint 2 is broken" in line
    assert (tmp_path / "2.broken").is_dir()
    save(tmp_path, 2)
    assert position(tmp_path) == (2, [])


def test_another_state_is_not_taken_for_a_broken_one(tmp_path):
    save(tmp_path, 1, 2)
    (tmp_path / "2" / CHECKSUMS).unlink()
    other = State(step=WANTED.step, params={"another": WANTED.params["net"]}, opt={}, extra={})
    with pytest.raises(UserError, match="has a different state"):
        Checkpoints(tmp_path).restore(other)
    assert Checkpoints(tmp_path).steps == [1, 2]


@pytest.mark.parametrize("dtype", [jnp.int32, jnp.bfloat16])
def test_an_array_of_another_dtype_is_not_cast(tmp_path, dtype):
    save(tmp_path, 1)
    net = jax.ShapeDtypeStruct(WANTED.params["net"].shape, dtype, sharding=WANTED.params["net"].sharding)
    with pytest.raises(UserError, match=rf"checkpoint 1 .* is float32, not {jnp.dtype(dtype)}"):
        read_state(tmp_path, WANTED.replace(params={"net": net}))


def test_without_a_sound_checkpoint_nothing_is_moved(tmp_path):
    save(tmp_path, 1, 2)
    for step in (1, 2):
        os.truncate(tmp_path / f"{step}" / "state" / "_METADATA", 3)
    with pytest.raises(UserError, match=r"all checkpoints in .* are broken; step 2: "):
        Checkpoints(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["1", "2"]


def test_the_checksums_are_there_when_waiting_ends(tmp_path):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE, {"next": 0})
    checkpoints.wait()
    written = json.loads((tmp_path / "1" / CHECKSUMS).read_text())
    assert written.keys() == {str(f.relative_to(tmp_path / "1")) for f in files(tmp_path / "1") if f.name != CHECKSUMS}


@pytest.mark.parametrize("moment", ["wait", "close", "save"])
@pytest.mark.parametrize("number, reason", [(errno.ENOSPC, "the disk is full"), (errno.EIO, "Input/output error")])
def test_what_goes_wrong_beside_the_training_is_said_at_the_next_call(tmp_path, monkeypatch, moment, number, reason):
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(1, STATE, {"next": 0})
    checkpoints.wait()

    class Failing:
        def result(self):
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(checkpoints._orbax, "save_checkpointables_async", lambda *a, **k: Failing())
    checkpoints.save(2, STATE, {"next": 0})
    call = {
        "wait": checkpoints.wait,
        "close": checkpoints.close,
        "save": lambda: checkpoints.save(3, STATE, {"next": 0}),
    }[moment]
    with pytest.raises(UserError, match=f"step 2 cannot be written to {tmp_path}: .*{reason}.*step 1 is intact"):
        call()
    checkpoints.close()  # says it once
