"""A run goes from eight devices to one and back, and with fsdp=8 each device holds an eighth of what is large."""

import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import environment

from cvjax import config, fit, runs
from cvjax.rundir import read_metrics
from cvjax.sharding import LARGE

ROOT = Path(__file__).parent.parent
STEPS = 8


def train(workdir, devices, steps):
    """`train.py`, in a process that sees so many devices."""
    command = [sys.executable, "train.py", "--config=configs/vae_digits.py:smoke", f"--workdir={workdir}"]
    command += [f"--config.{key}={value}" for key, value in dict(steps=steps, log_every=1, figure_every=0).items()]
    done = subprocess.run(command, cwd=ROOT, env=environment(devices), capture_output=True, text=True, timeout=120)
    assert done.returncode == 0 and "Traceback" not in done.stderr, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run that stayed on one device."""
    folder = tmp_path_factory.mktemp("straight")
    train(folder, 1, STEPS)
    return folder


@pytest.mark.parametrize("first, then", [(8, 1), pytest.param(1, 8, marks=pytest.mark.slow)])
def test_a_run_goes_on_with_other_devices(straight, tmp_path, first, then):
    train(tmp_path, first, STEPS // 2)
    assert f"continuing from step {STEPS // 2}" in train(tmp_path, then, STEPS)
    ours, theirs = ([row for row in read_metrics(run) if row["split"] == "train"] for run in (tmp_path, straight))
    assert [row["step"] for row in ours] == [row["step"] for row in theirs] == list(range(1, STEPS + 1))
    for row, expected in zip(ours, theirs, strict=True):  # sums over the batch in another order: float32 rounding
        assert row["loss/total"] == pytest.approx(expected["loss/total"], rel=1e-4)
    ours, theirs = (jax.tree.leaves(runs.load(run)[2].params) for run in (tmp_path, straight))
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-3)  # Adam's first steps are of size 1e-3 wherever a gradient is ~0


def test_with_fsdp_each_device_holds_an_eighth_of_what_is_large(tmp_path, monkeypatch):
    experiment = config.load("configs/vae_digits.py:smoke")
    experiment.recipe.hidden = (512,)
    experiment.mesh.fsdp = 8
    states = []
    monkeypatch.setattr(fit.Run, "_finish", lambda run, figures: states.append(run.state))
    fit.fit(experiment, tmp_path)
    (state,) = states
    large = [leaf for leaf in jax.tree.leaves((state.params, state.opt)) if leaf.size >= LARGE]
    assert len(large) >= 6  # two kernels, and Adam's two moments of each
    for leaf in large:
        assert len(leaf.sharding.device_set) == 8
        assert [shard.data.size for shard in leaf.addressable_shards] == [leaf.size // 8] * 8
    total = sum(leaf.nbytes for leaf in jax.tree.leaves(state.params))
    held = sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(state.params))
    assert held < total / 6  # what is small is held whole by each
