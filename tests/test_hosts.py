"""Two processes of four devices each, really started, walk the path of one process, and a signal to one stops both."""

import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from processes import environment

from cvjax import config, fit, runs
from cvjax.rundir import read_metrics

ROOT = Path(__file__).parent.parent
STEPS = 20


def start(workdir, name, steps):
    """Starts two processes of one run."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "train.py", f"--config=configs/{name}.py:smoke", f"--workdir={workdir}"]
    command += [f"--config.steps={steps}", f"--coordinator=127.0.0.1:{port}", "--process_count=2"]
    options = dict(cwd=ROOT, env=environment(devices=4), text=True)
    options |= dict(stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    return [subprocess.Popen([*command, f"--process_index={index}"], **options) for index in (0, 1)]


def path_of(run):
    """The run's training metrics, [step, metric]."""
    rows = [row for row in read_metrics(run) if row["split"] == "train"]
    assert [row["step"] for row in rows] == list(range(1, len(rows) + 1))
    return np.array([[value for name, value in row.items() if name not in ("step", "split")] for row in rows])


@pytest.mark.slow
def test_one_device_eight_devices_and_two_processes_walk_one_path(tmp_path):
    name = "dcgan_digits"  # batch statistics, two optimisers, averages
    processes = start(tmp_path / "two", name, STEPS)
    outputs = [process.communicate(timeout=300) for process in processes]
    assert [process.returncode for process in processes] == [0, 0], outputs[0][1] + outputs[1][1]
    experiment = config.load(f"configs/{name}.py:smoke")
    experiment.steps = STEPS
    fit.fit(experiment, tmp_path / "eight")
    make_mesh = fit.sharding.make_mesh
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fit.sharding, "make_mesh", lambda shape: make_mesh(shape, jax.devices()[:1]))
        fit.fit(experiment, tmp_path / "one")
    one = path_of(tmp_path / "one")
    for other in ("eight", "two"):
        path = path_of(tmp_path / other)
        np.testing.assert_allclose(path[0], one[0], rtol=1e-5)
        # Sums over the batch in another order: float32 rounding, which grows from step to step.
        np.testing.assert_allclose(path, one, rtol=1e-3)
    states = [jax.tree.map(np.asarray, runs.load(tmp_path / run)[2]) for run in ("one", "two")]
    for a, b in zip(*map(jax.tree.leaves, (states[0].extra, states[1].extra)), strict=True):  # batch statistics
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4)
    evaluations = [[row for row in read_metrics(tmp_path / run) if row["split"] == "eval"] for run in ("one", "two")]
    assert [row["step"] for row in evaluations[0]] == [row["step"] for row in evaluations[1]] == [STEPS]
    # Written by two processes, read by one with eight devices: one more step.
    experiment.steps = STEPS + 1
    fit.fit(experiment, tmp_path / "two")
    assert len(path_of(tmp_path / "two")) == STEPS + 1


def test_a_signal_to_one_process_stops_both_at_one_step(tmp_path):
    processes = start(tmp_path, "vae_digits", 1_000_000)
    for line in processes[0].stdout:
        if line.startswith("step 3/"):
            processes[1].send_signal(signal.SIGTERM)
            break
    outputs = [process.communicate(timeout=120) for process in processes]
    assert [process.returncode for process in processes] == [3, 3], outputs[0][1] + outputs[1][1]
    steps = [re.search(r"stopped the run at step (\d+)", errors).group(1) for _, errors in outputs]
    assert steps[0] == steps[1] and int(steps[0]) % fit.SIGNAL_EVERY == 0
    assert (tmp_path / "checkpoints" / steps[0]).is_dir()
