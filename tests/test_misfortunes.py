"""Misfortunes on the real command line: kills, broken checkpoints, a full disk. Each is explained, nothing is lost."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import environment

from cvjax import runs
from cvjax.checkpoint import Checkpoints
from cvjax.rundir import read_metrics

ROOT = Path(__file__).parent.parent
ON_ONE_DEVICE = dict(cwd=ROOT, env=environment(), text=True)
STEPS = 16
TEMPORARY = "*.orbax-checkpoint-tmp*"


def command(workdir, every=4):
    intervals = dict(log_every=1, eval_every=4, figure_every=0, checkpoint_every=every, steps=STEPS)
    flags = [f"--config.{name}={value}" for name, value in intervals.items()]
    flags.append("--config.recipe.hidden=(32,)")  # a checkpoint is larger than all else that is written with it
    return [sys.executable, "train.py", "--config=configs/vae_digits.py:smoke", f"--workdir={workdir}", *flags]


def train(workdir, **options):
    return subprocess.run(command(workdir, **options), **ON_ONE_DEVICE, capture_output=True, timeout=120)


def assert_same(run, straight):
    """Parameters, and all else of the state, bit for bit; each row of training and evaluation once and the same."""
    ours, theirs = (jax.tree.leaves(jax.tree.map(np.asarray, runs.load(folder)[2])) for folder in (run, straight))
    assert all(a.tobytes() == b.tobytes() for a, b in zip(ours, theirs, strict=True))
    ours, theirs = (
        [row for row in read_metrics(folder) if row["split"] in ("train", "eval")] for folder in (run, straight)
    )
    assert ours == theirs


def largest(folder):
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    assert Checkpoints(folder / "checkpoints").steps[-2:] == [STEPS - 4, STEPS]
    assert not list(folder.rglob("*.broken"))
    return folder


def kill_at_step(process, step, delay):
    """Kills some time after a step is reported."""
    for line in process.stdout:
        if line.startswith("step ") and int(line.split("/")[0].removeprefix("step ")) >= step:
            break
    time.sleep(delay)
    process.kill()


def kill_while_saving(process, checkpoints):
    """Kills at a moment when a checkpoint is half written, and makes sure that it was one."""
    while process.poll() is None:
        if list(checkpoints.glob(TEMPORARY)):
            process.send_signal(signal.SIGSTOP)
            if list(checkpoints.glob(TEMPORARY)) and (checkpoints / "2").exists():
                process.kill()
                return
            process.send_signal(signal.SIGCONT)
        time.sleep(0.001)


@pytest.mark.slow
def test_a_run_killed_again_and_again_equals_one_that_was_not(straight, tmp_path):
    checkpoints, moment = tmp_path / "checkpoints", random.Random()
    for kill in range(4):  # the first one in the middle of a checkpoint
        process = subprocess.Popen(
            command(tmp_path, every=1), **ON_ONE_DEVICE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        if kill == 0:
            kill_while_saving(process, checkpoints)
        else:
            kill_at_step(process, 3 * kill + moment.randrange(-1, 2), moment.uniform(0, 0.1))
        process.stdout.read()
        assert process.wait() == -signal.SIGKILL
        if kill == 0:
            assert list(checkpoints.glob(TEMPORARY))
    done = train(tmp_path, every=1)
    assert done.returncode == 0, done.stderr
    assert "continuing from step" in done.stdout
    assert not list(checkpoints.glob(TEMPORARY))
    assert_same(tmp_path, straight)


def cut(file):
    os.truncate(file, file.stat().st_size // 2)


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 0x10
    file.write_bytes(content)


@pytest.mark.parametrize(
    "spoil, fault", [(cut, "bytes"), pytest.param(flip, "different bytes than written", marks=pytest.mark.slow)]
)
def test_a_broken_checkpoint_falls_back_to_the_one_before(straight, tmp_path, spoil, fault):
    run = shutil.copytree(straight, tmp_path / "run")
    newest = run / "checkpoints" / f"{STEPS}"
    spoil(largest(newest))
    done = train(run)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    (line,) = (line for line in done.stdout.splitlines() if "is broken" in line)
    assert line.startswith(f"checkpoint {STEPS} is broken (") and fault in line
    assert f"{newest}.broken" in line and f"continuing from step {STEPS - 4}" in line
    assert f"continuing from step {STEPS - 4}" in done.stdout
    assert Path(f"{newest}.broken").is_dir() and newest.is_dir()
    assert_same(run, straight)


# A small disk of its own needs the right to mount; without it a limit on the size of files stands in for it.
ON_A_SMALL_DISK = """
import json, os, resource, shutil, subprocess, sys
run, copy, mounted, command = json.loads(sys.argv[1])
disk = os.path.dirname(run)
if mounted:
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], check=True)
ballast = os.path.join(disk, "ballast")

def train(free=None):
    shutil.rmtree(run, ignore_errors=True)
    shutil.copytree(copy, run)
    limit = None
    if free and mounted:
        space = os.statvfs(disk)
        with open(ballast, "wb") as file:
            file.write(bytes(space.f_bavail * space.f_frsize - free * 1024))
    elif free:
        limit = lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (free * 1024, free * 1024))
    done = subprocess.run(command, capture_output=True, text=True, preexec_fn=limit)
    if free and mounted:
        os.unlink(ballast)
    whole = [int(name) for name in os.listdir(os.path.join(run, "checkpoints")) if name.isdigit()]
    return done.returncode, done.stdout, done.stderr, sorted(whole)

outcomes = [train(free) for free in (16, 40, 420)]  # KiB: what finds no room first is not the same file
again = subprocess.run(command, capture_output=True, text=True)
shutil.copytree(run, copy + "-after")
print(json.dumps([outcomes, [again.returncode, again.stdout, again.stderr]]))
"""


@pytest.mark.slow
def test_a_full_disk_is_explained_and_loses_nothing(straight, tmp_path):
    spaces = (["unshare", "--mount"], ["unshare", "--map-root-user", "--mount"])
    mount = ["sh", "-c", f"mount -t tmpfs tmpfs {tmp_path}"]
    space = next((s for s in spaces if not subprocess.run([*s, *mount], capture_output=True).returncode), [])
    (tmp_path / "disk").mkdir()
    run, copy = tmp_path / "disk" / "run", shutil.copytree(straight, tmp_path / "copy")
    shutil.rmtree(copy / "checkpoints" / f"{STEPS}")
    job = json.dumps([str(run), str(copy), bool(space), command(run)])
    program = [*space, sys.executable, "-c", ON_A_SMALL_DISK, job]
    done = subprocess.run(program, **ON_ONE_DEVICE, capture_output=True, timeout=240)
    assert done.returncode == 0, done.stderr
    outcomes, (code, said, mishap) = json.loads(done.stdout)
    for failed, _, message, whole in outcomes:
        assert failed == 1 and whole[0] == STEPS - 4, message
        (line,) = message.splitlines()  # one message and nothing of Orbax's or TensorBoard's beside it
        assert line.startswith("error: ") and str(run) in line
        assert ("ake room there" in line) == ("File too large" not in line)  # a limit is not a full disk
        assert any(reason in line for reason in ("No space left on device", "the disk is full", "File too large"))
    unwritable = f"error: the checkpoint of step {STEPS} cannot be written to {run / 'checkpoints'}"
    assert outcomes[-1][2].startswith(unwritable) and f"step {STEPS - 4} is intact" in outcomes[-1][2]
    assert code == 0 and f"continuing from step {STEPS - 4}" in said, mishap
    assert_same(tmp_path / "copy-after", straight)


def test_a_path_that_is_not_utf_8_is_printed(tmp_path):
    path = os.fsdecode(b"caf\xe9")
    main = "from cvjax import command; import sys; command.run_main(lambda: print(sys.argv[1]))"
    strict = dict(cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "utf-8:strict"})
    done = subprocess.run([sys.executable, "-c", main, path], **strict, capture_output=True)
    assert (done.returncode, done.stdout) == (0, rb"caf\udce9" + b"\n"), done.stderr
