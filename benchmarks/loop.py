"""The training loop's overhead, the loader's throughput, startup time and memory.

    python -m benchmarks.loop

Writes the section `loop` of BENCHMARKS.md, and exits with 1 if a bar is missed.
"""

import contextlib
import dataclasses
import itertools
import multiprocessing
import os
import pathlib
import subprocess
import sys
import tempfile
import time
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from absl import app
from ml_collections import ConfigDict

from benchmarks import report
from cvjax import config as experiments
from cvjax import data, fit, sharding
from cvjax.compiled import compile_traced
from cvjax.data.iteration import TrainIterator

ROOT = pathlib.Path(__file__).resolve().parent.parent
CONFIGS = {"VAE": "configs/vae_digits.py", "DCGAN": "configs/dcgan_digits.py"}
ROUNDS, SEGMENT = 20, 100  # 20 segments of 100 steps, the log interval of both configs
EARLY, LATE = 200, 2000  # steps at which memory is measured
STARTS = 3  # pairs of starts: with an empty cache, and with the cache that it filled
QUIET = dict(eval_every=0, figure_every=0, checkpoint_every=0, checkpoint_best="")


def load(path: str, **changes: Any) -> ConfigDict:
    """Returns an experiment with changes by key."""
    config = experiments.load(str(ROOT / path))
    config.update_from_flattened_dict(changes)
    return config


class StopRun(Exception):
    """Ends a run before its final evaluation and figures."""


class WatchedIterator:
    """A training iterator that calls `watch(batches so far)` before each batch."""

    def __init__(self, iterator: TrainIterator, watch: Callable[[int], None]):
        self._iterator, self._watch, self._given = iterator, watch, 0

    def __iter__(self) -> Iterator:
        """Returns itself."""
        return self

    def __next__(self) -> dict[str, np.ndarray]:
        """Returns the next batch."""
        self._watch(self._given)
        self._given += 1
        return next(self._iterator)

    def __getattr__(self, name: str) -> Any:
        """Delegates to the iterator."""
        return getattr(self._iterator, name)


def open_run(config: ConfigDict, workdir: pathlib.Path, watch: Callable[[int], None]) -> fit.Run:
    """Returns the run that `fit` would make, with `watch` on its training batches."""
    mesh, examples = sharding.make_mesh(config.mesh.to_dict()), load_data(config)
    watched = dataclasses.replace(examples, train=lambda: WatchedIterator(examples.train(), watch))
    return fit.Run(config, workdir, mesh, experiments.build(config), {}, watched, types.SimpleNamespace(caught=None))


def load_data(config: ConfigDict) -> data.Data:
    """Returns an experiment's data."""
    return data.load(experiments.as_dict(config.data), seed=config.seed)


# The loop and the loader.


def bare_loop(config: ConfigDict) -> Callable[[int], None]:
    """Returns a function that takes steps of the jitted recipe, over batches that are already on the device."""
    recipe, key = experiments.build(config), jax.random.key(config.seed)
    batches = [jax.device_put(batch) for batch in itertools.islice(load_data(config).train(), 16)]
    step = jax.jit(
        lambda state, batch: recipe.train_step(state, batch, jax.random.fold_in(key, state.step)), donate_argnums=0
    )
    state, turn = jax.jit(recipe.init)(key, batches[0]), itertools.cycle(batches)
    step = compile_traced(step.trace(state, batches[0]))

    def work(steps):
        nonlocal state
        for batch in itertools.islice(turn, steps):
            state, _ = step(state, batch)
        jax.block_until_ready(state)

    work(2)
    return work


def measure(path: str, rounds: int = ROUNDS, segment: int = SEGMENT, **changes: Any) -> dict[str, list[float]]:
    """Times segments of a run, of a bare loop and of the loader alternately, in one process.

    The run is paused between segments, when it asks for a batch, while the others are timed.

    Returns:
      Seconds per segment of `fit`, `bare` and `loader`, by round.
    """
    config = load(path, **QUIET, steps=(rounds + 1) * segment + 1, **changes)
    bare, stream = bare_loop(config), load_data(config).train()
    times = {"fit": [], "bare": [], "loader": []}
    began = None

    def watch(given):
        nonlocal began
        if given % segment or not given:
            return
        jax.block_until_ready(run.state)
        if began is not None:  # the first segment warms up
            times["fit"].append(time.perf_counter() - began)
            times["bare"].append(_seconds(lambda: bare(segment)))
            times["loader"].append(_seconds(lambda: [next(stream) for _ in range(segment)]))
        if len(times["fit"]) == rounds:
            raise StopRun
        began = time.perf_counter()

    with tempfile.TemporaryDirectory() as workdir:
        run = open_run(config, pathlib.Path(workdir), watch)
        with contextlib.suppress(StopRun):
            run.train()
        run.close()
    return times


def _seconds(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


# Startup.


def first_step(path: str, cache: str) -> float:
    """Returns the seconds from the command to the first row of metrics."""
    environment = {**os.environ, "JAX_COMPILATION_CACHE_DIR": cache}
    with tempfile.TemporaryDirectory() as workdir:
        rows = pathlib.Path(workdir) / "metrics.jsonl"
        flags = [f"--config={path}", f"--workdir={workdir}", "--config.steps=1", "--config.log_every=1"]
        start = time.perf_counter()
        with subprocess.Popen(
            [sys.executable, "train.py", *flags], cwd=ROOT, env=environment, stdout=-3, stderr=-3
        ) as process:
            while not (rows.exists() and '"train"' in rows.read_text()):
                if process.poll() is not None and not rows.exists():
                    raise RuntimeError(f"train.py {' '.join(flags)}: exit code {process.returncode}")
                time.sleep(0.01)
            seconds = time.perf_counter() - start
            process.kill()
    return seconds


def starts(path: str, rounds: int = STARTS) -> list[tuple[float, float]]:
    """Returns the seconds to the first step with an empty compilation cache, and with the cache that it filled."""
    pairs = []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            pairs.append((first_step(path, cache), first_step(path, cache)))
    return pairs


# Memory.


def memory(path: str, early: int = EARLY, late: int = LATE) -> dict[int, int]:
    """Returns the resident bytes of a run (smoke variant, own process) after `early` and `late` steps."""
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        return pool.apply(_memory, (path, early, late))


def _memory(path: str, early: int, late: int) -> dict[int, int]:
    # All periodic work happens before the early reading too.
    every = early // 2
    config = load(f"{path}:smoke", steps=late + 1, eval_every=every, figure_every=every, checkpoint_every=every)
    config.log_every = 1
    resident = {}

    def watch(given):
        if given in (early, late):
            resident[given] = _resident()
        if given == late:
            raise StopRun

    with tempfile.TemporaryDirectory() as workdir:
        run = open_run(config, pathlib.Path(workdir), watch)
        with contextlib.suppress(StopRun):
            run.train()
        run.close()
    return resident


def _resident() -> int:
    """Returns this process's resident memory in bytes (Linux)."""
    return int(pathlib.Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


# The table.


def rows(name: str, times: Mapping[str, list[float]], batch: int, segment: int) -> list[tuple[str, bool]]:
    """Returns lines of the table for the loop and the loader, and whether their bars are met."""
    low, middle, high = report.ratio(times["fit"], times["bare"])
    step = 1e3 * np.median(times["bare"]) / segment
    spread = f"{middle:.3f} ({low:.3f} to {high:.3f})"
    loop = f"| {name}: `fit` by a bare jitted loop of its step | <= 1.05 | {spread} | a bare step {step:.2f} ms |"
    low, faster, high = report.ratio(times["bare"], times["loader"])
    loaded, consumed = (segment * batch / np.median(times[who]) for who in ("loader", "bare"))
    spread = f"{faster:.1f} ({low:.1f} to {high:.1f})"
    rates = f"{loaded:,.0f} and {consumed:,.0f} examples/s"
    loader = f"| {name}: loader by what the step consumes | >= 3 | {spread} | {rates} |"
    return [(loop, middle <= 1.05), (loader, faster >= 3)]


def memory_row(name: str, resident: Mapping[int, int]) -> tuple[str, bool]:
    """Returns the line for memory, and whether its bar is met."""
    (early, before), (late, after) = sorted(resident.items())
    sizes = f"{after / 2**20:.0f} and {before / 2**20:.0f} MiB"
    what = f"{name}, smoke: memory after {late:,} steps by that after {early:,}"
    return f"| {what} | <= 1.02 | {after / before:.3f} | {sizes} |", after / before <= 1.02


def main(_) -> None:
    lines = ["| what | bar | ratio | figures |", "|---|---|---|---|"]
    print("\n".join(lines))
    missed = []

    def add_line(line: str, met: bool = True) -> None:
        lines.append(line)
        missed.extend([] if met else [line.split("|")[1].strip()])
        print(line, flush=True)

    for name, path in CONFIGS.items():
        for line in rows(name, measure(path), load(path).data.batch, SEGMENT):
            add_line(*line)
    for name, path in CONFIGS.items():
        add_line(*memory_row(name, memory(path)))
    for name, path in CONFIGS.items():
        for variant, suffix in (("", ""), (", smoke", ":smoke")):
            cold, warm = zip(*starts(path + suffix), strict=True)
            low, middle, high = report.ratio(warm, cold)
            what = f"{name}{variant}: command to first step, compilation cache warm by cold"
            seconds = f"{np.median(warm):.1f} and {np.median(cold):.1f} s"
            add_line(f"| {what} | | {middle:.2f} ({low:.2f} to {high:.2f}) | {seconds} |")
    report.write_section("loop", "\n".join([HEADER, *lines]))
    if missed:
        sys.exit(f"Missed: {'; '.join(missed)}")


HEADER = f"""## The loop around a step

`python -m benchmarks.loop`, on CPU. `fit` writes its rows of metrics as the config says; loop, bare loop and loader are
timed in turn in one process, {SEGMENT} steps each, {ROUNDS} times: medians of the rounds' ratios, with their quartiles.
Memory is resident; evaluations, figures and checkpoints lie before both readings. Starts are timed {STARTS} times each.
{report.machine(["jax", "flax", "numpy"])}.
"""

if __name__ == "__main__":
    app.run(main)
