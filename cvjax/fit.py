"""The only training loop.

Steps are dispatched before the metrics of earlier ones are fetched, so the device never waits for the host; the state
is donated; the step compiles once.
"""

import collections
import contextlib
import json
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jaxtyping import PyTree
from ml_collections import ConfigDict

from cvjax import borrow, checkpoint, data, judging, rundir, runs, sharding
from cvjax import config as experiments
from cvjax.compiled import Compiled, compile_recipe, describe_state, enable_cache
from cvjax.core import Recipe, State
from cvjax.data import vocabulary
from cvjax.data.sources import readable
from cvjax.display import doing
from cvjax.errors import Stopped, UserError, number_of
from cvjax.record import COMPILING, Record


def fit(config: ConfigDict, workdir: str | Path) -> dict[str, float]:
    """Trains an experiment, resuming the run in `workdir` if there is one. Returns figures of the final evaluation.

    `workdir` receives config.json, metrics.jsonl, TensorBoard events, figures/, checkpoints/ and report.html. Raises a
    UserError for a mistake in the config or a failure that the message explains, and `Stopped` after SIGTERM or SIGINT,
    once a checkpoint has been saved.
    """
    enable_cache()
    mesh = sharding.make_mesh(config.mesh.to_dict())
    workdir = Path(workdir)
    data.refuse_workdir(experiments.as_dict(config.data), workdir)
    config = experiments.name_classes(config, experiments.check(config, mesh.size))
    networks = runs.networks(config, workdir)
    recipe = experiments.build(config, borrow.make_networks(networks))
    check_steps(config, recipe)
    runs.open_workdir(config, workdir)
    processes = dict(process_index=jax.process_index(), process_count=jax.process_count())
    with rundir.hold(workdir) if jax.process_index() == 0 else contextlib.nullcontext(), _Signals() as signals:
        # Only a run that is continued has a vocabulary that counts.
        words = vocabulary.read(workdir) if checkpoint.exists(workdir / "checkpoints") else None
        opening = f"opening {readable(config.data.name or config.data.folder)}"
        with doing(opening) if jax.process_index() == 0 else contextlib.nullcontext():
            examples = data.load(experiments.as_dict(config.data), seed=config.seed, vocabulary=words, **processes)
        run = Run(config, workdir, mesh, recipe, networks, examples, signals)
        try:
            figures = run.train()
        except BaseException:
            with contextlib.suppress(UserError):  # report the first error
                run.close()
            raise
        run.close()
    return figures


def check_steps(config: ConfigDict, recipe: Recipe) -> None:
    """Raises a UserError if `steps`, `judge` or `data.per_class` of the config does not suit the recipe."""
    if recipe.train_step is None and config.steps:
        raise UserError(f"config.steps={config.steps}: {config.system} trains nothing; set it to 0.")
    if recipe.train_step is not None and config.steps < 1:
        raise UserError(f"config.steps={config.steps}: must be at least 1.")
    if config.judge and recipe.sample is None:
        raise UserError(f"config.judge={config.judge!r}: {config.system} does not sample; leave it empty.")
    per_class, batch = config.data.per_class, config.data.batch
    if recipe.balanced and not 2 <= (per_class or 0) < batch:
        divisors = [count for count in range(2, batch // 2 + 1) if batch % count == 0]
        if divisors:
            pictures = min(divisors, key=lambda count: abs(count - 4))
            advice = (
                f"set it to a divisor of the batch from 2 to {divisors[-1]}, such as {pictures} pictures of "
                f"{batch // pictures} classes in a batch of {batch}."
            )
        else:
            advice = (
                f"no number divides config.data.batch={batch} into several; set that to {max(4, batch + batch % 2)}."
            )
        raise UserError(
            f"config.data.per_class={per_class}: {config.system} compares pictures of one class with those of others; "
            + advice
        )


# Steps in flight while the host waits. It wakes up once every AHEAD steps, because on a CPU each wake-up costs the
# running step up to 5 % (benchmarks/loop.py).
AHEAD = 4
SIGNAL_EVERY = 10  # steps between agreements of several processes on whether to stop


class Run:
    """A run in progress."""

    def __init__(self, config, workdir, mesh, recipe, networks, examples, signals):
        """Compiles the recipe, then restores or initialises the state."""
        self.config, self.workdir, self.mesh, self.recipe = config, workdir, mesh, recipe
        self.examples, self.signals = examples, signals
        self.iterator = examples.train()
        self.batch = next(self.iterator)
        self.changed = experiments.changed_settings(config)
        facts = runs.facts(config, mesh, self.batch) | {"networks": networks, "changed_settings": self.changed}
        wanted = describe_state(recipe, mesh, facts["batch"])
        fresh = not checkpoint.exists(workdir / "checkpoints")
        self.borrowed = borrow.read(experiments.as_dict(config), recipe, wanted) if fresh else {}
        self.judge = judging.make_judge(config) if config.judge else None
        expect = experiments.as_dict(config)["expect"]
        best = (config.checkpoint_best, expect[config.checkpoint_best][0]) if config.checkpoint_best else None
        self.checkpoints = checkpoint.Checkpoints(workdir / "checkpoints", keep=config.checkpoint_keep, best=best)
        if (self.checkpoints.latest or 0) > config.steps:
            raise UserError(
                f"{workdir} is at step {self.checkpoints.latest} already, past config.steps={config.steps}."
            )
        held = {} if self.changed else expect
        self.record = Record(workdir, steps=config.steps, expect=held, active=jax.process_index() == 0)
        with self.record.doing(COMPILING) if recipe.train_step else contextlib.nullcontext():
            self.compiled = compile_recipe(recipe, mesh, facts["batch"], config.seed)
        self.record.start(json.loads(json.dumps(experiments.as_dict(config))), facts)
        if examples.vocabulary and jax.process_index() == 0:
            vocabulary.write(workdir, examples.vocabulary)
        self.state = self._init_or_restore()
        self.step = int(self.state.step)
        self.evaluated = None, None
        self.record.parameters(self.state.params or self.state.frozen)
        self.clock, self.profiling, self.stopping = _Clock(self.step), False, False

    def train(self) -> dict[str, float]:
        """Takes the remaining steps and returns the figures of the final evaluation."""
        config, pending, figures = self.config, collections.deque(), None
        self._profile()
        while self.step < config.steps:
            batch = sharding.make_step_input(self._next_batch(), self.mesh)
            self.state, metrics = self.compiled.train_step(self.state, batch)
            self.step += 1
            pending.append((self.step, metrics))
            if len(pending) == 2 * AHEAD:
                jax.block_until_ready(pending[AHEAD - 1])
                for _ in range(AHEAD):
                    self._record_metrics(*pending.popleft())
            self._profile()
            if self._actions_due():
                while pending:
                    step, metrics = pending.popleft()
                    self._record_metrics(step, metrics, always=not pending)
                figures = self._run_actions()
        if self.checkpoints.latest is None:  # nothing to train
            figures = self._run_actions()
        if figures is None:  # the run was already complete
            figures = self._evaluate()
            if not any(
                row["split"] == "eval" and row["step"] == self.step for row in rundir.iterate_metrics(self.workdir)
            ):
                self.record.scalars(self.step, "eval", figures)
        self._finish(figures)
        return figures

    def close(self) -> None:
        """Flushes checkpoints and records."""
        if self.profiling:
            jax.profiler.stop_trace()
        try:
            self.checkpoints.close()
        finally:
            self.record.close()

    def _init_or_restore(self) -> State:
        if self.checkpoints.latest is None:
            self.record.rewind(0)
            with self.record.doing("initialising"):
                state = jax.block_until_ready(self.compiled.init())
            return borrow.insert_networks(state, self.borrowed)
        state, position = self.checkpoints.restore(self.compiled.abstract_state)
        self.iterator.set_state(position)
        self.batch = None
        # A run that had not stopped at this step would have evaluated here only if due.
        undue = () if _due(int(state.step), self.config.eval_every) else ("eval",)
        self.record.rewind(int(state.step), without=undue)
        self.record.say(f"continuing from step {int(state.step)}")
        return state

    def _next_batch(self) -> dict[str, np.ndarray]:
        batch, self.batch = self.batch, None  # the first batch was drawn for its shapes
        if batch is None:
            with self.clock.waiting():
                batch = next(self.iterator)
        return batch

    def _record_metrics(self, step: int, metrics: Mapping[str, Any], always: bool = False) -> None:
        """Records the metrics of a step if they are due, and aborts if they are not finite."""
        due = _due(step, self.config.log_every)
        if not (due or always):
            return
        values = {name: float(value) for name, value in metrics.items()}
        broken = [name for name, value in values.items() if not np.isfinite(value)]
        if due and not broken:
            self.record.scalars(step, "speed", self.clock.speed(step, self.config.data.batch, self.compiled))
        if due or broken:
            self.record.scalars(step, "train", values)
        if broken:
            self._abort(", ".join(f"{name} is {values[name]}" for name in broken), step)

    def _abort(self, reason: str, step: int | None = None) -> None:
        self.checkpoints.wait()
        latest = self.checkpoints.latest
        kept = "There is no checkpoint yet" if latest is None else f"The last finite checkpoint is step {latest}"
        raise UserError(
            f"step {step or self.step}: {reason}. {kept} in {self.workdir}; try a lower learning rate, or "
            "clip=1.0 in the optimiser's dict, with another --workdir."
        )

    def _actions_due(self) -> bool:
        config = self.config
        every = (config.eval_every, config.judge_every, config.figure_every, config.checkpoint_every)
        if self.step % SIGNAL_EVERY == 0 or jax.process_count() == 1:  # all processes stop at the same step
            self.stopping = sharding.any_process(bool(self.signals.caught))
        return self.stopping or self.step == self.config.steps or any(_due(self.step, interval) for interval in every)

    def _conclude(self) -> None:
        """Has the recipe fit what it fits after the last step."""

        def rows(function: Callable) -> Iterator[tuple[dict, dict]]:
            for placed in (sharding.make_step_input(batch, self.mesh) for batch in self.examples.train()):
                yield sharding.to_host((function(self.state, placed), placed))

        with self.record.doing("concluding the training"):
            after = self.recipe.conclude(self.state, rows)
            self.state = jax.tree.map(lambda new, leaf: jax.device_put(new, leaf.sharding), after, self.state)

    def _run_actions(self) -> dict[str, float] | None:
        """Concludes, evaluates, saves figures and a checkpoint, each if due; then stops if a signal arrived."""
        config, last = self.config, self.step == self.config.steps
        figures = None
        with self.clock.paused():
            if not _finite(self.state.params):
                self._abort("the parameters are not finite")
            if last and self.step and self.recipe.conclude:
                self._conclude()
            if last or _due(self.step, config.eval_every) or self._judge_due():
                figures = self._evaluate()
                self.record.scalars(self.step, "eval", figures)
            if last or _due(self.step, config.figure_every):
                with self.record.doing("drawing figures"):
                    self._save_figures()
            if last or self.stopping or _due(self.step, config.checkpoint_every):
                self.checkpoints.save(self.step, self.state, self.iterator.get_state(), figures)
            if self.stopping and not last:
                self.checkpoints.wait()
                by = self.signals.caught or "another process"
                raise Stopped(
                    f"{by} stopped the run at step {self.step} of {config.steps}; it is saved in {self.workdir}. "
                    "The same command resumes it."
                )
            self.record.report()
        return figures

    def _judge_due(self) -> bool:
        return self.judge is not None and _due(self.step, self.config.judge_every)

    def _evaluate(self) -> dict[str, float]:
        """Scores the state and, if due, has samples judged."""
        config, last = self.config, self.step == self.config.steps
        with self.record.doing("evaluating"):
            figures = evaluate(self.recipe, self._eval_step, self.state, self.examples, self.mesh)
        if self.judge is not None and (last or self._judge_due() or not config.judge_every):
            with self.record.doing(f"drawing {number_of(config.judge_samples, 'sample')} and judging them"):
                figures |= judging.judge_samples(self.judge, self.recipe, self.state, self.examples, self.mesh, config)
        return figures

    def _eval_step(self, state: State, batch: Mapping[str, jax.Array], index: int) -> dict[str, jax.Array]:
        """Evaluates a batch; keeps the outputs of the first one if they will be drawn."""
        outputs = self.compiled.eval_step(state, batch, index)
        if index == 0 and self.recipe.shows_outputs:
            self.evaluated = self.step, outputs
        return outputs

    def _save_figures(self) -> None:
        batch = sharding.place_batch(next(self.examples.evaluate()), self.mesh)
        key = jax.random.fold_in(jax.random.key(self.config.seed), 2**31 - 1)  # the same noise every time
        shown = self.state, batch, key
        if self.recipe.shows_outputs:
            step, outputs = self.evaluated
            shown += (outputs if step == self.step else self.compiled.eval_step(self.state, batch, 0),)
            self.evaluated = None, None
        images = self.recipe.visualise(*shown)
        if self.judge is not None:
            images = images | judging.draw_samples(key, self.judge, self.recipe, self.state)
        for name, grid in sharding.to_host(images).items():
            self.record.figure(self.step, name, grid)

    def _profile(self) -> None:
        """Starts and stops the profiler at the configured steps."""
        first, last = self.config.profile or (0, 0)
        if self.profiling and (self.step >= last or self.step == self.config.steps):
            jax.block_until_ready(self.state)
            jax.profiler.stop_trace()
            self.profiling = False
        elif first <= self.step + 1 <= last and self.step < self.config.steps and not self.profiling:
            jax.profiler.start_trace(str(self.workdir / "profile"))
            self.profiling = True

    def _finish(self, figures: Mapping[str, float]) -> None:
        self.checkpoints.wait()
        self.record.verdict(figures)
        if self.changed:
            self.record.say(f"no verdict: the bars of `expect` are for other settings ({', '.join(self.changed)})")
        self.record.say(f"done: {self.workdir}, pictures and curves in {self.workdir / 'report.html'}")


def evaluate(
    recipe: Recipe, eval_step: Callable, state: State, examples: data.Data, mesh: jax.sharding.Mesh
) -> dict[str, float]:
    """Returns a state's figures on the evaluation split, each example counted once.

    `eval_step` is jitted, as `compiled.jit_eval_step` makes it.
    """

    def rows() -> Iterator[tuple[dict, dict]]:
        for index, batch in enumerate(examples.evaluate()):
            placed = sharding.place_batch(batch, mesh)
            outputs, inputs = sharding.to_host((eval_step(state, placed, index), placed))
            yield data.drop_padding(inputs, inputs), data.drop_padding(outputs, inputs)

    return {name: float(value) for name, value in recipe.score(rows()).items()}


@jax.jit
def _finite(params: PyTree) -> jax.Array:
    finite = jax.tree.map(lambda leaf: jax.numpy.isfinite(leaf).all(), params)
    return jax.tree.reduce(jax.numpy.logical_and, finite, jax.numpy.array(True))


def _due(step: int, interval: int) -> bool:
    return interval > 0 and step % interval == 0


class _Signals:
    """Catches the first SIGTERM or SIGINT; a second one kills the process."""

    def __enter__(self):
        self.caught = None
        self.before = {}
        for number in (signal.SIGTERM, signal.SIGINT):
            try:
                self.before[number] = signal.signal(number, self._catch)
            except ValueError:  # not in the main thread: the caller handles signals
                break
        return self

    def _catch(self, number, frame):
        self.caught = signal.Signals(number).name
        signal.signal(number, self.before[number])

    def __exit__(self, *exception):
        for number, handler in self.before.items():
            signal.signal(number, handler)


class _Clock:
    """Measures speed between log rows, excluding evaluation, figures and checkpoints."""

    def __init__(self, step: int):
        self.step, self.begun, self.waited = step, time.perf_counter(), 0.0

    def waiting(self) -> "_Timer":
        return _Timer(lambda seconds: setattr(self, "waited", self.waited + seconds))

    def paused(self) -> "_Timer":
        return _Timer(lambda seconds: setattr(self, "begun", self.begun + seconds))

    def speed(self, step: int, batch: int, compiled: Compiled) -> dict[str, float]:
        now = time.perf_counter()
        seconds = max(now - self.begun, 1e-9)
        rate = (step - self.step) / seconds
        waited = self.waited / seconds
        self.step, self.begun, self.waited = step, now, 0.0
        return {
            "steps_per_second": rate,
            "examples_per_second": rate * batch,
            "flops_per_second": rate * compiled.flops,
            "compile_seconds": compiled.seconds,
            "data_wait": waited,
        }


class _Timer:
    def __init__(self, done: Callable[[float], None]):
        self.done = done

    def __enter__(self):
        self.begun = time.perf_counter()

    def __exit__(self, *exception):
        self.done(time.perf_counter() - self.begun)
