"""Exported networks give the run's own outputs, in a process that has nothing but JAX."""

import json
import re
import subprocess
import sys

import flax
import jax
import numpy as np
import pytest
import safetensors.numpy
import test_configs
import yaml

from cvjax import config, core, data, runs
from cvjax.core import variables
from cvjax.errors import UserError
from cvjax.programs import export
from cvjax.rundir import read_metrics

# Loads and calls a program by three lines, with only JAX and NumPy to import.
LOADED = """
import sys
import numpy
sys.modules["cvjax"] = sys.modules["flax"] = None
images = numpy.load(sys.argv[1])
import jax
program = jax.export.deserialize(bytearray(open(sys.argv[2], "rb").read()))
outputs = program.call(images)
numpy.savez(sys.argv[3], **outputs)
"""


@pytest.fixture(scope="module")
def exported(trained_run, tmp_path_factory):
    run, output = trained_run("configs/classifier_digits.py:smoke"), tmp_path_factory.mktemp("exported")
    export.main([f"--run={run}", f"--output={output}", f"--hub={output.parent}/digits-net", "--licence=cc-by-4.0"])
    return run, output


def test_a_program_alone_reaches_the_runs_figures(exported, tmp_path):
    run, output = exported
    description, recipe, state = runs.load(run)
    batches = list(data.load(data.complete(description["config"]["data"]), seed=0).evaluate())
    images, labels = (np.concatenate([b[name][b["valid"]] for b in batches]) for name in ("image", "label"))
    np.save(tmp_path / "images.npy", images[:301])  # no number that anything was compiled for
    arguments = [tmp_path / "images.npy", output / "predict.stablehlo", tmp_path / "outputs.npz"]
    done = subprocess.run([sys.executable, "-c", LOADED, *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = np.load(tmp_path / "outputs.npz")
    own = recipe.predict(state, {"image": images[:301]}, jax.random.key(0))
    np.testing.assert_allclose(found["probability"], own["probability"], atol=1e-6)
    np.testing.assert_array_equal(found["label"], own["label"])
    whole = jax.export.deserialize(bytearray((output / "predict.stablehlo").read_bytes())).call(images)
    figures = [row for row in read_metrics(run) if row["split"] == "eval"][-1]
    assert (np.asarray(whole["label"]) == labels).mean() == pytest.approx(figures["accuracy"], abs=1e-6)


def test_what_is_written_says_what_it_is(exported):
    run, output = exported
    about = json.loads((output / "export.json").read_text())
    assert about["platforms"] == ["cpu", "cuda", "tpu"] and about["classes"] == list("0123456789")
    assert about["predict"]["inputs"] == [[["batch", 8, 8, 1], "float32"]]
    assert about["predict"]["outputs"]["probability"] == [["batch", 10], "float32"]
    _, _, state = runs.load(run)
    written = safetensors.numpy.load_file(output / "classifier.safetensors")
    own = flax.traverse_util.flatten_dict(variables(state, "classifier"), sep="/")
    assert written.keys() == own.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(written[name], value)


def test_a_folder_for_the_hub_is_loaded_as_its_card_says(exported, monkeypatch):
    run, output = exported
    monkeypatch.chdir(output.parent)
    card = (output.parent / "digits-net" / "README.md").read_text()
    head = yaml.safe_load(card.split("---\n")[1])
    assert head["library_name"] == "cvjax" and head["license"] == "cc-by-4.0" and "recognition" in head["tags"]
    figures = [row for row in read_metrics(run) if row["split"] == "eval"][-1]
    assert f"| accuracy | {figures['accuracy']:.4g} | share of the images whose" in card
    assert "| system | `recognition.classifier` |" in card and "| data | digits |" in card
    names = {}
    exec(re.search(r"```python\n(.*?)```", card, re.DOTALL)[1], names)  # loads the networks
    _, recipe, state = runs.load(run)
    assert names["module"] == recipe.networks["classifier"]
    own = flax.traverse_util.flatten_dict(variables(state, "classifier"))
    found = flax.traverse_util.flatten_dict(names["variables"])
    assert found.keys() == own.keys()
    for name, value in own.items():
        np.testing.assert_array_equal(found[name], value)
    assert str(run) not in (output.parent / "digits-net" / "config.json").read_text()


def test_mistakes_in_the_flags_are_named(exported, tmp_path):
    run, _ = exported
    with pytest.raises(UserError, match="Give --output=FOLDER, --hub=FOLDER, or both"):
        export.main([f"--run={run}"])
    with pytest.raises(UserError, match="--hub: under which licence"):
        export.main([f"--run={run}", f"--hub={tmp_path}"])
    with pytest.raises(UserError, match="'Apache 2' is not the identifier of a licence"):
        export.main([f"--run={run}", f"--hub={tmp_path}", "--licence=Apache 2"])
    assert not list(tmp_path.iterdir())


def test_samples_depend_on_the_seed_that_a_program_is_given(trained_run, tmp_path, capsys):
    run = trained_run("configs/vae_digits.py:smoke")
    export.main([f"--run={run}", f"--output={tmp_path}", "--count=3"])
    said = capsys.readouterr().out
    assert all(f"{what} ...\n" in said for what in (f"loading {run}", "compiling sample for cpu, cuda, tpu"))
    program = jax.export.deserialize(bytearray((tmp_path / "sample.stablehlo").read_bytes()))
    _, recipe, state = runs.load(run)
    for seed in (0, 5):
        own = recipe.sample(state, jax.random.key(seed), {"count": 3})["image"]
        np.testing.assert_allclose(program.call(np.uint32(seed))["image"], own, atol=1e-6)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "decoder.safetensors").write_text("mine")
    with pytest.raises(UserError, match=r"mine/decoder\.safetensors would be overwritten"):
        export.main([f"--run={run}", f"--output={tmp_path / 'mine'}"])
    with pytest.raises(UserError, match="--count=0: must be at least 1"):
        export.main([f"--run={run}", f"--output={tmp_path}", "--count=0"])


@pytest.mark.slow
@test_configs.EACH_SYSTEM
def test_every_system_is_exported_for_all_platforms(system):
    path = test_configs.trained_configs()[system]
    recipe = test_configs.build(config.load(f"{path}:smoke"), ":smoke")
    shape = test_configs.shapes(path, ":smoke")[0]
    state = test_configs.traced(path, ":smoke").arguments[0]
    state = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), state)
    refused = {f"detection.{name}": "proposed outside" for name in ("rcnn", "spp_net", "fast_rcnn")}
    if "style" in recipe.predict_inputs or system in refused:
        with pytest.raises(UserError, match=refused.get(system, "pictures of styles")):
            export.export_predict(recipe, state, shape["image"].shape[1:], seed=0)
    elif recipe.predict is not None:
        program = export.export_predict(recipe, state, shape["image"].shape[1:], seed=0)
        assert program.platforms == export.PLATFORMS and str(program.in_avals[0].shape[0]) == "batch"
    if recipe.sample is not None:
        assert export.export_sample(recipe, state, 2).platforms == export.PLATFORMS


def test_both_directions_of_a_cyclegan_are_exported(trained_run, tmp_path, capsys):
    run = trained_run("configs/cyclegan_shapes.py:smoke")
    export.main([f"--run={run}", f"--output={tmp_path / 'both'}", "--label=a_to_b", "--label=1"])
    _, recipe, state = runs.load(run)
    images = np.random.default_rng(0).uniform(size=(3, 32, 32, 3)).astype(np.float32)
    about = json.loads((tmp_path / "both" / "export.json").read_text())
    for label, name in enumerate(("predict_a_to_b", "predict_b_to_a")):
        program = jax.export.deserialize(bytearray((tmp_path / "both" / f"{name}.stablehlo").read_bytes()))
        wanted = recipe.predict(state, {"image": images, "label": np.full(3, label)}, jax.random.key(0))["image"]
        np.testing.assert_allclose(program.call(images)["image"], wanted, atol=1e-5)
        assert about[name]["inputs"] == [[["batch", 32, 32, 3], "float32"]]
    assert "predict" not in about and not (tmp_path / "both" / "predict.stablehlo").exists()


def test_labels_that_no_program_is_told_are_refused(trained_run, exported, tmp_path):
    run = trained_run("configs/cyclegan_shapes.py:smoke")
    with pytest.raises(UserError, match=r"--label=b_to_c: there is no such class\. Did you mean"):
        export.main([f"--run={run}", f"--output={tmp_path}", "--label=b_to_c"])
    with pytest.raises(UserError, match=r"--label=3: recognition\.\w+ takes no labels beside images"):
        export.main([f"--run={exported[0]}", f"--output={tmp_path}", "--label=3"])
    with pytest.raises(UserError, match=r"--label=a_to_b is for programs: give --output=FOLDER"):
        export.main([f"--run={run}", f"--hub={tmp_path}", "--licence=other", "--label=a_to_b"])
    assert not list(tmp_path.glob("*.stablehlo"))


def test_labels_whose_programs_would_have_one_name_are_refused():
    recipe = core.Recipe({}, *[print] * 5, predict=print, predict_inputs=("image", "label"))
    names = ("a b", "a_b", "c")
    assert export.label_programs(["a b", "0", "c"], "system", recipe, names) == {"predict_a_b": 0, "predict_c": 2}
    with pytest.raises(UserError, match=r"--label=a_b: 'a b' and 'a_b' would both be predict_a_b"):
        export.label_programs(["a b", "a_b"], "system", recipe, names)
