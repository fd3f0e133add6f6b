"""A trained run, from its folder alone, applied to images, a folder and a video, and drawn from."""

import json
import shutil

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvjax import apply, config, fit, runs
from cvjax.errors import UserError


@pytest.fixture(scope="module")
def vae(tmp_path_factory):
    """A trained run, moved away from where it was made."""
    made, moved = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("moved") / "run"
    fit.fit(config.load("configs/vae_digits.py:smoke"), made)
    shutil.move(made, moved)
    return moved


@pytest.fixture
def pictures(tmp_path):
    folder = tmp_path / "pictures"
    (folder / "below").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name, size in [("grey.png", (20, 30)), ("colour.jpg", (12, 9, 3)), ("below/third.png", (8, 8))]:
        Image.fromarray(generator.integers(0, 255, size, dtype=np.uint8)).save(folder / name)
    return folder


def test_a_folder_of_images_of_any_size(vae, pictures, tmp_path):
    output = tmp_path / "out"
    assert apply.main([f"--run={vae}", f"--input={pictures}", f"--output={output}", "--batch=2"]) == 0
    written = sorted(str(path.relative_to(output)) for path in output.rglob("*.png"))
    assert written == ["below/third.png", "colour.png", "grey.png"]
    exact = np.asarray(Image.open(pictures / "below/third.png"), np.float32)[None, ..., None] / 255
    _, recipe, state = runs.load(vae)
    expected = np.asarray(recipe.predict(state, {"image": exact})["image"])[0, ..., 0]
    ours = np.asarray(Image.open(output / "below/third.png"))[..., 0] / 255
    np.testing.assert_allclose(ours, expected, atol=1.1 / 255)  # a PNG's rounding


def test_names_stay_apart_and_inputs_are_not_overwritten(vae, pictures, tmp_path):
    Image.new("L", (8, 8)).save(pictures / "grey.jpg")
    apply.main([f"--run={vae}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])
    assert {path.name for path in (tmp_path / "out").glob("grey*")} == {"grey.jpg.png", "grey.png.png"}
    with pytest.raises(UserError, match="overwritten"):
        apply.main([f"--run={vae}", f"--input={pictures}", f"--output={pictures / 'below' / '..'}"])


def test_outputs_that_are_no_images_go_to_json(pictures, tmp_path):
    run = tmp_path / "classifier"
    fit.fit(config.load("configs/classifier_digits.py:smoke"), run)
    apply.main([f"--run={run}", f"--input={pictures}", f"--output={tmp_path / 'out'}"])
    written = json.loads((tmp_path / "out" / "predictions.json").read_text())
    assert sorted(written) == ["below/third", "colour", "grey"]
    _, recipe, state = runs.load(run)
    image = np.asarray(Image.open(pictures / "below/third.png"), np.float32)[None, ..., None] / 255
    for name, value in recipe.predict(state, {"image": jnp.asarray(image)}).items():
        np.testing.assert_allclose(written["below/third"][name], value[0], rtol=1e-4, atol=1e-5)


def test_one_image(vae, pictures, tmp_path):
    apply.main([f"--run={vae}", f"--input={pictures / 'colour.jpg'}", f"--output={tmp_path / 'one'}"])
    assert [path.name for path in (tmp_path / "one").iterdir()] == ["colour.png"]


def test_a_video_keeps_its_frames_and_rate(vae, tmp_path, capsys):
    source, output = tmp_path / "in.avi", tmp_path / "out" / "out.mp4"
    writer = cv2.VideoWriter(str(source), cv2.VideoWriter_fourcc(*"MJPG"), 12, (32, 24))
    for level in range(7):
        writer.write(np.full((24, 32, 3), level * 30, np.uint8))
    writer.release()
    apply.main([f"--run={vae}", f"--input={source}", f"--output={output}", "--batch=3"])
    capture = cv2.VideoCapture(str(output))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 7 and capture.get(cv2.CAP_PROP_FPS) == 12
    assert "7 frames" in capsys.readouterr().out


def test_samples_depend_on_the_seed_alone(vae, tmp_path):
    for folder, seed in [("a", 3), ("b", 3), ("c", 4)]:
        apply.main([f"--run={vae}", "--count=5", f"--seed={seed}", f"--output={tmp_path / folder}"])
    a, b, c = ([p.read_bytes() for p in sorted((tmp_path / folder).glob("image_0*.png"))] for folder in "abc")
    assert len(a) == 5 and a == b and a != c
    assert (tmp_path / "a" / "image_grid.png").exists()


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--count=3"], "--run"),
        (["--run={run}"], "either --input"),
        (["--run={run}", "--count=3", "--input=x"], "either --input"),
        (["--run={run}", "--count=0"], "--count=0"),
        (["--run={run}", "--count=many"], "--count"),
        (["--run={empty}", "--count=3"], "not the folder of a run"),
        (["--run={run}", "--count=3", "--step=77"], "no checkpoint 77"),
        (["--run={run}", "--input={empty}"], "holds no images"),
        (["--run={run}", "--input={empty}/x.png"], "no such file"),
        (["--run={run}", "--input={empty}/x.mp4"], "called .mp4 or .avi"),
    ],
)
def test_mistakes_are_named(vae, tmp_path, arguments, words):
    (tmp_path / "empty").mkdir()
    given = [text.format(run=vae, empty=tmp_path / "empty") for text in arguments]
    with pytest.raises(UserError, match=words):
        apply.main([*given, f"--output={tmp_path / 'out'}"])
    assert not (tmp_path / "out").exists()


def test_a_corrupt_image_is_named(vae, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png"):
        apply.main([f"--run={vae}", f"--input={tmp_path / 'text.png'}", f"--output={tmp_path / 'out'}"])


def test_a_system_that_only_samples_or_only_predicts_says_so(vae, tmp_path, monkeypatch):
    description, recipe, state = runs.load(vae)
    without = type(recipe)(**{**vars(recipe), "predict": None, "sample": None})
    monkeypatch.setattr(runs, "load", lambda run, step: (description, without, state))
    with pytest.raises(UserError, match="give --count"):
        apply.main([f"--run={vae}", f"--input={tmp_path}", f"--output={tmp_path / 'out'}"])
    with pytest.raises(UserError, match="does not sample"):
        apply.main([f"--run={vae}", "--count=2", f"--output={tmp_path / 'out'}"])
    assert json.loads((vae / "config.json").read_text())["config"]["system"] == description["config"]["system"]
