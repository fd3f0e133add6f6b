"""The loop: dispatched ahead, compiled once, continued exactly, stopped with a checkpoint, and never past a NaN."""

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import compiled, config, fit, runs
from cvjax.checkpoint import Checkpoints
from cvjax.core import Recipe, State
from cvjax.errors import UserError
from cvjax.rundir import read_metrics

ROOT = Path(__file__).parent.parent
SMOKE = "configs/vae_digits.py:smoke"


def smoke(**values):
    experiment = config.load(SMOKE)
    experiment.update_from_flattened_dict(values)
    return experiment


def test_a_workdir_that_no_checkpoint_can_be_written_to_is_refused_before_compiling(tmp_path, capsys):
    with pytest.raises(UserError, match=r"--workdir=.*caf\\xe9 is not UTF-8, .* rename it"):
        fit.fit(smoke(), tmp_path / os.fsdecode(b"caf\xe9"))
    assert not list(tmp_path.iterdir()) and "compiling" not in capsys.readouterr().out


def params_of(run):
    return jax.tree.map(np.asarray, runs.load(run)[2])


def same(left, right):
    return all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(left), jax.tree.leaves(right), strict=True))


def rows_of(run, *splits):
    """The run's rows, without those that hold times."""
    return [row for row in read_metrics(run) if row["split"] in splits]


@pytest.fixture(scope="module")
def straight(tmp_path_factory):
    """A run of six steps that nothing disturbed."""
    folder = tmp_path_factory.mktemp("straight")
    figures = fit.fit(smoke(steps=6, eval_every=3, figure_every=3, checkpoint_every=2), folder)
    return folder, figures


def test_the_pictures_of_a_run_do_not_become_its_examples(tmp_path):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    own = smoke(**{"data.name": None, "data.folder": str(pictures)})
    for workdir in (pictures, pictures / "a" / "run"):
        with pytest.raises(UserError, match=rf"--workdir={workdir} is in {pictures}, .* such as --workdir={tmp_path}/"):
            fit.fit(own, workdir)
    with pytest.raises(UserError, match="holds no images"):
        fit.fit(own, pictures / ".runs" / "hidden")
    second = smoke(**{"data.also": {"folder": str(pictures)}})
    with pytest.raises(UserError, match=r"--workdir=.* is in"):
        fit.fit(second, pictures / "run")
    (pictures / "train-images-idx3-ubyte").touch()  # beside IDX files images are not examples
    with pytest.raises(UserError, match="idx3"):
        fit.fit(own, pictures / "run")
    assert not (pictures / "run").exists()


def test_a_runs_folder_holds_all_that_is_promised(straight):
    folder, figures = straight
    description = json.loads((folder / "config.json").read_text())
    assert description["config"]["system"] == "generative.autoencoders.vae"
    assert description["seed"] == 0 and len(description["devices"]) == 8
    assert {"jax", "flax", "python"} <= description["versions"].keys()
    assert sorted(p.name for p in (folder / "checkpoints").iterdir() if p.name.isdigit()) == ["4", "6"]
    assert (folder / "report.html").stat().st_size > 1000
    assert {p.name for p in (folder / "figures" / "samples").iterdir()} == {"00000003.png", "00000006.png"}
    assert list(folder.rglob("*tfevents*"))
    assert [row["step"] for row in rows_of(folder, "train")] == [1, 2, 3, 4, 5, 6]
    assert [row["step"] for row in rows_of(folder, "eval")] == [3, 6]
    speed = rows_of(folder, "speed")[-1]
    assert speed["steps_per_second"] > 0 and speed["compile_seconds"] > 0 and speed["flops_per_second"] > 0
    assert 0 <= speed["data_wait"] <= 1
    assert figures["bits_per_dim"] == rows_of(folder, "eval")[-1]["bits_per_dim"]


def test_a_run_continued_at_any_step_equals_one_that_was_not_stopped(straight, tmp_path):
    folder, figures = straight
    for steps in (1, 3, 4, 6):  # 1 and 3 lie between checkpoints of the straight run
        continued = fit.fit(smoke(steps=steps, eval_every=3, figure_every=3, checkpoint_every=2), tmp_path)
    assert continued == figures
    assert same(params_of(folder), params_of(tmp_path))
    assert rows_of(tmp_path, "train", "eval") == rows_of(folder, "train", "eval")


def test_a_finished_run_started_again_only_evaluates(straight, capsys):
    folder, figures = straight
    assert fit.fit(smoke(steps=6, eval_every=3, figure_every=3, checkpoint_every=2), folder) == figures
    assert [row["step"] for row in rows_of(folder, "train", "eval")] == [1, 2, 3, 3, 4, 5, 6, 6]


def test_only_the_intervals_and_the_bars_may_change_on_resuming(straight, tmp_path):
    folder, _ = straight
    copy = shutil.copytree(folder, tmp_path / "copy")
    with pytest.raises(UserError, match=r"data\.batch: 16 in the run, 32 asked for") as error:
        fit.fit(smoke(steps=8, **{"data.batch": 32}), folder)
    assert "seed" not in str(error.value)
    fit.fit(smoke(steps=7, log_every=2, expect={"bits_per_dim": (">", 9.0), "kl": ("<=", 99.0)}), copy)
    with pytest.raises(UserError, match="at step 6 already"):
        fit.fit(smoke(steps=5), folder)


def test_nothing_compiles_after_the_first_step(tmp_path, monkeypatch):
    compiles, at_step = [], {}
    jax.monitoring.register_event_duration_secs_listener(lambda event, seconds, **kw: compiles.append(event))
    original = fit.Run._record_metrics

    def record_metrics(run, step, metrics, always=False):
        original(run, step, metrics, always)
        at_step[step] = sum("backend_compile" in event for event in compiles)

    monkeypatch.setattr(fit.Run, "_record_metrics", record_metrics)
    try:
        fit.fit(smoke(steps=12), tmp_path)
    finally:
        jax.monitoring.clear_event_listeners()
    assert at_step[1] >= 1  # the listener hears compilations at all
    assert at_step[12] == at_step[1]


def test_the_next_step_is_dispatched_before_the_last_ones_metrics_are_read(tmp_path, monkeypatch):
    events = []

    class Watched:
        def __init__(self, step, value):
            self.step, self.value = step, value

        def __float__(self):
            events.append(("read", self.step))
            return float(self.value)

    original = compiled.compile_recipe

    def watched(*arguments):
        ours = original(*arguments)

        def train_step(state, batch):
            state, metrics = ours.train_step(state, batch)
            step = len([e for e in events if e[0] == "dispatch"]) + 1
            events.append(("dispatch", step))
            return state, {"loss/total": Watched(step, metrics["loss/total"])}

        return compiled.Compiled(**{**vars(ours), "train_step": train_step})

    monkeypatch.setattr(fit, "compile_recipe", watched)
    fit.fit(smoke(steps=5), tmp_path)
    for step in range(1, 5):
        assert events.index(("dispatch", step + 1)) < events.index(("read", step))


def test_the_state_is_donated(tmp_path):
    experiment = smoke()
    recipe, mesh = config.build(experiment), fit.sharding.make_mesh({"data": -1})
    batch = {"image": ((16, 8, 8, 1), "float32"), "label": ((16,), "int32")}
    ours = compiled.compile_recipe(recipe, mesh, batch, 0)
    state = ours.init()
    placed = fit.sharding.place_batch({k: np.zeros(shape, dtype) for k, (shape, dtype) in batch.items()}, mesh)
    new, _ = ours.train_step(state, placed)
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new))


def test_a_checkpoint_is_of_its_step_though_the_state_is_donated_at_once(tmp_path):
    step = jax.jit(lambda s: s.replace(step=s.step + 1, params={"net": s.params["net"] + 1}), donate_argnums=0)
    state = State(step=jnp.int32(0), params={"net": jnp.zeros((512, 512))}, opt={}, extra={})
    wanted = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints = Checkpoints(tmp_path, keep=20)
    for index in range(10):
        checkpoints.save(index, state, {"next": index})
        for _ in range(3):
            state = step(state)
    checkpoints.wait()
    for index in range(10):
        restored, position = checkpoints.restore(wanted, index)
        assert position == {"next": index}
        assert (np.asarray(restored.params["net"]) == 3 * index).all()


def test_the_latest_checkpoints_and_the_best_are_kept(tmp_path):
    state = State(step=jnp.int32(0), params={}, opt={}, extra={})
    checkpoints = Checkpoints(tmp_path, keep=2, best=("fid", "<="))
    for step, fid in enumerate([3.0, 1.0, float("nan"), 2.0, 5.0, 4.0]):
        checkpoints.save(step, state, {"next": step}, {"fid": fid, "kl": -fid})
    checkpoints.save(6, state, {"next": 6}, {"another": 0.0})
    checkpoints.save(7, state, {"next": 7}, None)
    checkpoints.wait()
    assert checkpoints.steps == [1, 6, 7]
    checkpoints.close()
    checkpoints = Checkpoints(tmp_path, keep=1, best=("kl", ">="))  # another bar on resuming
    checkpoints.save(8, state, {"next": 8}, {"kl": -3.0})
    checkpoints.wait()
    assert checkpoints.steps == [1, 8]


def test_the_best_by_the_configs_figure_is_kept(tmp_path):
    experiment = smoke(steps=8, eval_every=2, checkpoint_every=2, checkpoint_keep=1, checkpoint_best="bits_per_dim")
    fit.fit(experiment, tmp_path)
    figures = {row["step"]: row["bits_per_dim"] for row in rows_of(tmp_path, "eval")}
    assert Checkpoints(tmp_path / "checkpoints").steps == sorted({min(figures, key=figures.get), 8})
    with pytest.raises(UserError, match="checkpoint_best='bits': no such figure"):
        fit.fit(smoke(checkpoint_best="bits"), tmp_path / "other")


def test_a_run_can_be_read_while_it_saves(tmp_path, straight):
    folder = shutil.copytree(straight[0], tmp_path / "run")
    under_way = folder / "checkpoints" / "9.orbax-checkpoint-tmp"
    under_way.mkdir()
    runs.load(folder)
    assert under_way.exists()


@pytest.mark.parametrize(
    "number, name", [(signal.SIGTERM, "SIGTERM"), pytest.param(signal.SIGINT, "SIGINT", marks=pytest.mark.slow)]
)
def test_a_signal_stops_with_a_checkpoint_and_the_same_command_goes_on_exactly(tmp_path, number, name):
    command = [sys.executable, "train.py", f"--config={SMOKE}", f"--workdir={tmp_path}", "--config.steps=1000000"]
    command += ["--config.eval_every=3", "--config.figure_every=3", "--config.checkpoint_every=2"]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for line in process.stdout:
        if line.startswith("step 2/"):
            process.send_signal(number)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 3, errors
    assert f"{name} stopped the run at step" in errors and "The same command resumes it" in errors
    assert "Traceback" not in errors
    stopped = Checkpoints(tmp_path / "checkpoints").latest
    assert stopped >= 2
    straight_run, resumed = tmp_path / "straight", smoke(steps=stopped + 2, eval_every=3, checkpoint_every=2)
    fit.fit(resumed, tmp_path)
    fit.fit(smoke(steps=stopped + 2, eval_every=3, checkpoint_every=2), straight_run)
    assert same(params_of(tmp_path), params_of(straight_run))


def test_a_loss_that_turns_nan_stops_and_keeps_the_last_finite_checkpoint(tmp_path, monkeypatch):
    original = config.build

    def broken(experiment, networks=None):
        recipe = original(experiment, networks)

        def train_step(state, batch, key):
            state, metrics = recipe.train_step(state, batch, key)
            return state, {**metrics, "loss/total": jnp.where(state.step >= 5, jnp.nan, metrics["loss/total"])}

        return Recipe(**{**vars(recipe), "train_step": train_step})

    monkeypatch.setattr(config, "build", broken)
    with pytest.raises(UserError, match=r"step 5: loss/total is nan\. The last finite checkpoint is step 4"):
        fit.fit(smoke(steps=8, checkpoint_every=2), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest == 4


@pytest.mark.parametrize("concluded", [False, True])
def test_parameters_that_are_not_finite_are_not_saved(tmp_path, monkeypatch, concluded):
    original = config.build

    def broken(experiment, networks=None):
        recipe = original(experiment, networks)

        def train_step(state, batch, key):  # the loss, taken before the update, is finite
            state, metrics = recipe.train_step(state, batch, key)
            spoilt = jax.tree.map(lambda p: jnp.where(state.step >= 2, jnp.nan, p), state.params)
            return state.replace(params=spoilt), metrics

        fields = vars(recipe) | {"train_step": train_step}
        return Recipe(**fields | ({"conclude": lambda *_: pytest.fail("fitted to NaN")} if concluded else {}))

    monkeypatch.setattr(config, "build", broken)
    with pytest.raises(UserError, match=r"step 2: the parameters are not finite\. There is no checkpoint yet"):
        fit.fit(smoke(steps=2), tmp_path)
    assert Checkpoints(tmp_path / "checkpoints").latest is None


def test_a_network_starts_from_another_run_and_needs_it_no_more(straight, tmp_path):
    source = shutil.copytree(straight[0], tmp_path / "source")
    borrowing = smoke(steps=1, borrow={"encoder": f"{source}/encoder"}, seed=5)
    fit.fit(borrowing, tmp_path / "b")
    trained, fresh = params_of(source).params, params_of(tmp_path / "b").params
    distance = lambda a, b: max(np.abs(x - y).max() for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))  # noqa: E731
    assert distance(trained["encoder"], fresh["encoder"]) < 2e-3 < distance(trained["decoder"], fresh["decoder"])
    shutil.rmtree(source)
    borrowing.steps = 2
    fit.fit(borrowing, tmp_path / "b")
    assert int(params_of(tmp_path / "b").step) == 2


def test_mistakes_in_what_is_borrowed_are_named_before_anything_is_written(straight, tmp_path):
    folder, _ = straight
    with pytest.raises(UserError, match=r"no network 'generator'"):
        fit.fit(smoke(borrow={"encoder": f"{folder}/generator"}), tmp_path / "c")
    with pytest.raises(UserError, match=r"nowhere is not the folder of a run"):
        fit.fit(smoke(borrow={"encoder": "nowhere/encoder"}), tmp_path / "c")
    assert not (tmp_path / "c" / "config.json").exists()  # nothing stands in the way of the right command
    with pytest.raises(UserError, match=r"mean.*\(16, 8\) there"):
        fit.fit(smoke(borrow={"encoder": f"{folder}/encoder"}, **{"recipe.latent": 4}), tmp_path / "d")


def test_what_cannot_be_trained_or_judged_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"config\.steps=0: must be at least 1"):
        fit.fit(smoke(steps=0), tmp_path)
    for seed in (2**32, 2**63, -1):  # a key of 2**32 would be that of 0
        with pytest.raises(UserError, match=rf"config\.seed={seed}: expected int from 0 to 4294967295"):
            fit.fit(smoke(seed=seed), tmp_path)
    with pytest.raises(UserError, match=r"there are no features 'digit'. Did you mean 'digits'"):
        fit.fit(smoke(judge="digit"), tmp_path)


def test_a_profile_is_written(tmp_path):
    for steps in (1, 3, 5):  # stopped before, at the end of, and past the profiled steps
        fit.fit(smoke(steps=steps, profile=(2, 3)), tmp_path)
        assert bool(list((tmp_path / "profile").rglob("*.xplane.pb"))) == (steps > 1)


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        fit.fit(smoke(), tmp_path / "file" / "run")
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("home", [None, "/dev/null/home"])
def test_without_a_home_nothing_is_cached_and_a_line_says_so(home, monkeypatch, capsys):
    before = jax.config.jax_compilation_cache_dir
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)

    def find():
        if home is None:
            raise RuntimeError("Could not determine home directory.")
        return Path(home)

    monkeypatch.setattr(Path, "home", find)
    try:
        jax.config.update("jax_compilation_cache_dir", None)
        compiled.enable_cache()
        assert jax.config.jax_compilation_cache_dir is None
    finally:
        jax.config.update("jax_compilation_cache_dir", before)
    (line,) = capsys.readouterr().err.splitlines()
    assert "are not kept for the next run" in line and "JAX_COMPILATION_CACHE_DIR" in line


@pytest.mark.parametrize(("folder", "kept_from", "expected"), [(None, 1.0, 0), ("mine", 1.0, 0), ("mine", 5.0, 5.0)])
def test_all_programs_of_a_run_are_kept_for_the_next(folder, kept_from, expected, monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    names = ("jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs")
    before = {name: getattr(jax.config, name) for name in names}
    try:
        for name, value in zip(names, (folder, kept_from), strict=True):
            jax.config.update(name, value)
        compiled.enable_cache()
        place = folder or str(tmp_path / "cvjax" / "compiled")
        assert [getattr(jax.config, name) for name in names] == [place, expected]
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def test_two_runs_in_one_folder_are_refused(straight, monkeypatch, tmp_path):
    folder = shutil.copytree(straight[0], tmp_path / "run")

    def lockf(*_):
        raise BlockingIOError(errno.EAGAIN, "Resource temporarily unavailable")

    monkeypatch.setattr(fit.rundir.fcntl, "lockf", lockf)
    with pytest.raises(UserError, match=f"{folder} is in use: process"):
        fit.fit(smoke(steps=8), folder)
    assert Checkpoints(folder / "checkpoints").latest == 6
