"""Every config, found by its file, is whole and can be traced; every system takes finite steps and resumes exactly.

Compiling is what costs. So every function of every config is traced, at full size and at that of its smoke variant, and
only one config of each system is trained, on one device.
"""

import contextlib
import dataclasses
import functools
import importlib.util
import json
import math
import shutil

import cv2
import house
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds
from conftest import unit
from PIL import Image

from cvjax import borrow, captions, config, data, fit, runs
from cvjax.core import Network, class_names
from cvjax.data import builders
from cvjax.errors import UserError
from cvjax.ops import flops
from cvjax.programs import apply
from cvjax.weights import packages

CONFIGS = list(house.sources("configs/*.py"))
PLATFORMS = ("cuda", "tpu")
SOURCE = (
    "name",
    "folder",
    "train_split",
    "eval_split",
    "class_maps",
    "images",
    "masks",
)  # keys of `data` that say what is read
FULL = pytest.param("", id="full", marks=pytest.mark.slow)


EACH_CONFIG = pytest.mark.parametrize("path", [unit(config.load(path).system, path) for path in CONFIGS])
EACH_SYSTEM = pytest.mark.parametrize("system", [unit(system) for system in config.systems()])


def downloaded(experiment):
    name = (experiment.data.name or "").split("/")[0]
    return name and name not in builders.EMBEDDED


def examples_of(experiment):
    """Random examples in the place of a dataset that would have to be downloaded."""
    return tfds.testing.mock_data(num_examples=64) if downloaded(experiment) else contextlib.nullcontext()


@functools.cache
def trained_configs():
    """{system: the first of its configs}; one whose dataset ships comes before others."""
    experiments = {path: config.load(path) for path in CONFIGS}
    order = sorted(CONFIGS, key=lambda path: (bool(downloaded(experiments[path])), path))
    return {experiments[path].system: path for path in reversed(order)}


def lenders(experiment):
    """{network: (config, network there)} of the configs whose runs an experiment borrows from."""
    sources = {name: source.split("/") for name, source in experiment.borrow.items() if source.startswith("runs/")}
    return {name: (f"configs/{run}.py", network) for name, (_, run, network) in sources.items()}


def smoke(path, trained_run, steps=3):
    """The smoke variant of a config, every step of which is logged and saved, with trained networks to borrow."""
    experiment = config.load(f"{path}:smoke")
    experiment.update(log_every=1, checkpoint_every=1, checkpoint_keep=3, eval_every=0, figure_every=0)
    experiment.update(steps=min(steps, experiment.steps), judge_samples=64)
    for name, (lender, network) in lenders(experiment).items():
        experiment.borrow[name] = f"{trained_run(f'{lender}:smoke')}/{network}"
    return experiment


def metrics(run):
    """The last row of each kind of a run, without those that time it."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["split"]: row for row in rows if row["split"] in ("train", "eval")}


def assert_finite(run, steps):
    rows = metrics(run)
    wanted = {"train": steps, "eval": steps} if steps else {"eval": 0}
    assert {split: row["step"] for split, row in rows.items()} == wanted
    assert all(math.isfinite(value) for row in rows.values() for name, value in row.items() if name != "split")
    pictures = {path.parent.relative_to(run / "figures").as_posix() for path in (run / "figures").rglob("*.png")}
    assert (run / "report.html").exists() and pictures
    assert not [name for name in pictures if not captions.describe_picture(name)]  # cvjax/captions.py has a line for it
    assert not [name for name in rows["eval"].keys() - {"step", "split"} if not captions.describe_measure(name)]


@functools.cache
def shapes(path, variant):
    """The shapes and types of a training batch and of an evaluation batch, from one example of the smoke's dataset."""
    chosen, small = config.load(path + variant).data, config.load(f"{path}:smoke")
    source = {name: config.as_dict(small.data)[name] for name in SOURCE}
    one = config.as_dict(chosen) | source
    if one["also"]:
        one["also"] = one["also"] | {name: config.as_dict(small.data)["also"][name] for name in SOURCE}
    one["per_class"] = None if downloaded(small) else chosen.per_class  # mock data has no list of labels
    with examples_of(small):
        examples = data.load(one | {"batch": one["per_class"] or 1, "eval_batch": 1, "workers": 0}, seed=0)
        pairs = [(chosen.batch, next(examples.train())), (chosen.eval_batch or chosen.batch, next(examples.evaluate()))]
    return [{k: jax.ShapeDtypeStruct((rows, *v.shape[1:]), v.dtype) for k, v in one.items()} for rows, one in pairs]


def build(experiment, variant):
    """The recipe of an experiment; the networks that it takes as arguments are those of their configs' recipes."""
    packaged = {name: source for name, source in experiment.borrow.items() if source.startswith(packages.PREFIX)}
    # Their files are not read: no package has to be installed. Only pictures show the names of the classes.
    about = {name: {"package": source, "shape": packages.find(source).shape} for name, source in packaged.items()}
    networks = borrow.make_networks({name: {**found, "classes": ()} for name, found in about.items()})
    for name in config.network_arguments(experiment.system):
        if name in networks or not experiment.borrow.get(name):
            continue
        path, network = lenders(experiment)[name]
        lender = config.load(path + variant)
        module, shape = build(lender, variant).networks[network], shapes(path, variant)[0]["image"].shape[1:]
        networks[name] = Network(module, shape, class_names(lender.recipe.get("classes") or ()))
    return config.build(experiment, networks)


@dataclasses.dataclass(frozen=True)
class Traced:
    """A config's steps as they are traced: what they take and return. Nothing is computed."""

    train_step: object  # None where nothing is trained
    arguments: tuple  # of train_step: state, batch, key
    eval_step: object
    held_out: dict  # the batch of eval_step
    outputs: dict  # of eval_step


@functools.cache
def traced(path, variant):
    recipe = build(config.load(path + variant), variant)
    batch, held_out = shapes(path, variant)
    key = jax.eval_shape(lambda: jax.random.key(0))
    state = jax.eval_shape(recipe.init, key, batch)
    outputs = jax.eval_shape(recipe.eval_step, state, held_out, key)
    step = recipe.train_step and jax.jit(recipe.train_step)
    return Traced(step, (state, batch, key), jax.jit(recipe.eval_step), held_out, outputs)


def described(tree):
    return jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), tree)


@EACH_CONFIG
def test_config_is_whole(path):
    full, small = config.load(path), config.load(f"{path}:smoke")
    assert full.expect and small.system == full.system
    assert not [name for name in full.expect if not captions.describe_measure(name)]
    assert 3 <= small.steps <= 20 < full.steps or small.steps == full.steps == 0
    sizes = [size for c in (full, small) for size in (c.data.batch, c.data.eval_batch or 8)]
    assert not any(size % 8 for size in sizes if size != 1), "for eight devices, or for one as its paper has it"
    with pytest.raises(UserError, match=r"smok.*'smoke'"):
        config.load(f"{path}:smok")
    spec = importlib.util.spec_from_file_location("config", path)  # as ml_collections' flag does, without a variant
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().to_json_best_effort() == full.to_json_best_effort()


@pytest.mark.parametrize("variant", [FULL, ":smoke"])
@EACH_CONFIG
def test_config_is_traced_and_its_state_keeps_its_structure(path, variant):
    found = traced(path, variant)
    assert found.outputs or config.load(path).judge  # what only samples tell has no rows
    assert all(leaf.shape[:1] == found.held_out["image"].shape[:1] for leaf in jax.tree.leaves(found.outputs))
    before = found.arguments[0]
    if found.train_step is None:
        assert not before.params
        return
    after, values = found.train_step.trace(*found.arguments).out_info
    assert jax.tree.structure(after) == jax.tree.structure(before) and described(after) == described(before)
    assert values and all(value.shape == () for value in values.values())


def test_every_system_has_a_config():
    assert sorted(trained_configs()) == sorted(config.systems())


@EACH_SYSTEM
def test_system_is_lowered_for_accelerators(system):
    found = traced(trained_configs()[system], ":smoke")
    state, batch, key = found.arguments
    step, batch = (found.train_step, batch) if found.train_step else (found.eval_step, found.held_out)
    assert jax.export.export(step, platforms=PLATFORMS)(state, batch, key).platforms == PLATFORMS


@EACH_SYSTEM
def test_bfloat16_is_of_the_networks_alone(system):
    path, key = trained_configs()[system], jax.random.key(0)
    experiment, (batch, held_out) = config.load(f"{path}:smoke"), shapes(path, ":smoke")
    experiment.precision = "bfloat16"
    recipe, in_float32 = build(experiment, ":smoke"), traced(path, ":smoke")
    state = in_float32.arguments[0]
    assert described(jax.eval_shape(recipe.init, key, batch)) == described(state)
    program, outputs = jax.make_jaxpr(recipe.eval_step, return_shape=True)(state, held_out, key)
    assert described(outputs) == described(in_float32.outputs)
    if recipe.train_step:
        program, (after, values) = jax.make_jaxpr(recipe.train_step, return_shape=True)(state, batch, key)
        assert described(after) == described(state)
        assert {value.dtype for value in values.values()} == {np.dtype("float32")}
    operations = flops.count(program)
    # The rest resizes or distorts images, cuts out regions or interpolates their features, or multiplies the few
    # channels of a small network to Gram matrices.
    share = {"detection.sliding_window": 0.3, "detection.rcnn": 0.3, "detection.faster_rcnn": 0.8}
    share |= {"detection.alternating": 0.8, "detection.mask_rcnn": 0.3}  # the latter crops masks
    share |= {"translation.style_transfer": 0.5, "translation.fast_style": 0.5}
    share |= {
        f"translation.super_resolution.{name}": 0.5 for name in ("edsr", "wdsr", "srresnet", "srgan", "pretrained")
    }
    share = share.get(system, 0.97)
    if system == "recognition.pixel_distance":  # it has no network
        assert operations.total() == 0
    else:
        assert operations["bfloat16"] > share * operations.total()


@pytest.fixture(scope="module")
def straight_run(trained_run, tmp_path_factory):
    """Trains each system once; returns its experiment, folder and figures."""

    @functools.cache
    def train(system):
        experiment = smoke(trained_configs()[system], trained_run)
        folder = tmp_path_factory.mktemp(system) / "straight"
        with examples_of(experiment):
            return experiment, folder, fit.fit(experiment, folder)

    return train


@EACH_SYSTEM
def test_system_takes_finite_steps_and_resumes_exactly(system, one_device, straight_run, tmp_path):
    experiment, folder, straight = straight_run(system)
    with examples_of(experiment):
        shutil.copytree(folder, tmp_path / "killed")
        if experiment.steps:
            shutil.rmtree(tmp_path / "killed" / "checkpoints" / "3")  # as if it had died after step 2
        resumed = fit.fit(experiment, tmp_path / "killed")
        one, two = (jax.tree.map(np.asarray, runs.load(run)[2]) for run in (folder, tmp_path / "killed"))
    assert_finite(folder, experiment.steps)
    assert resumed == straight
    assert metrics(tmp_path / "killed") == metrics(folder)
    jax.tree.map(np.testing.assert_array_equal, two, one)


@pytest.fixture
def pictures(tmp_path):
    """A folder of two pictures of different sizes, and a video of three frames, both beside each other."""
    generator, folder = np.random.default_rng(0), tmp_path / "pictures"
    folder.mkdir()
    for name, size in {"a.png": (40, 52, 3), "b.png": (64, 64)}.items():
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (48, 40))
    for _ in range(3):
        writer.write(generator.integers(0, 255, (40, 48, 3), dtype=np.uint8))
    writer.release()
    return folder, tmp_path / "in.avi"


@pytest.mark.slow
@EACH_SYSTEM
def test_system_is_applied_and_sampled(system, one_device, straight_run, pictures, tmp_path, monkeypatch, capsys):
    _, folder, _ = straight_run(system)
    loaded = runs.load(folder)
    monkeypatch.setattr(runs, "load", lambda *_: loaded)  # compiles once

    recipe, (images, video) = loaded[1], pictures
    label = ["--label=0"] if "label" in recipe.predict_inputs else []
    label += [f"--style={images / 'a.png'}"] if "style" in recipe.predict_inputs else []

    def run(output, *arguments):
        further = label if any(argument.startswith("--input=") for argument in arguments) else []
        apply.main([f"--run={folder}", f"--output={tmp_path / output}", "--batch=2", *arguments, *further])
        return {path.name for path in (tmp_path / output).rglob("*")}

    if recipe.predict is None:
        with pytest.raises(UserError, match="takes no images"):
            run("out", f"--input={images}")
    else:
        assert {"a.png", "b.png"} <= run("folder", f"--input={images}") or (
            tmp_path / "folder/predictions.json"
        ).exists()
        assert len(run("image", f"--input={images / 'a.png'}")) <= len(run("folder", f"--input={images}"))
        try:
            run("out.mp4", f"--input={video}")
        except UserError as error:
            assert "outputs are not images" in str(error) and not list((tmp_path / "folder").glob("a.png"))
        else:
            assert cv2.VideoCapture(str(tmp_path / "out.mp4")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    if recipe.sample is None:
        with pytest.raises(UserError, match="does not sample"):
            run("samples", "--count=2")
    else:
        assert {"image_00000.png", "image_00001.png", "image_grid.png"} <= run("samples", "--count=2")
