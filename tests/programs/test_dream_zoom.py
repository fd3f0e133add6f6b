"""The zoom into a dream: its frames, its video, and what it refuses."""

import cv2
import jax
import numpy as np
import pytest
from PIL import Image

from cvjax import runs
from cvjax.core import Recipe, start
from cvjax.errors import UserError
from cvjax.interpret.deep_dream import zoom
from cvjax.programs import dream_zoom

DESCRIPTION = {
    "config": {"system": "interpret.deep_dream", "recipe": {}, "data": {"eval_transforms": ()}},
    "batch": {"image": [[8, 32, 32, 3], "float32"]},
}


@pytest.fixture
def dreamer(monkeypatch):
    """A run whose dream lightens a picture."""
    lighten = lambda state, inputs, key: {"image": np.minimum(inputs["image"] + 0.1, 1)}  # noqa: E731
    recipe = Recipe({}, lighten, None, lighten, lighten, lighten, predict=lighten)
    monkeypatch.setattr(runs, "load", lambda folder: (DESCRIPTION, recipe, start({}, {})))


def test_each_frame_is_dreamt_on_the_one_before_enlarged(dreamer, tmp_path):
    levels = np.random.default_rng(0).integers(0, 100, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(levels).save(tmp_path / "in.png")
    arguments = [f"--input={tmp_path / 'in.png'}", f"--output={tmp_path / 'out.avi'}", "--frames=3", "--factor=1.5"]
    dream_zoom.main([f"--run={tmp_path}", *arguments])
    assert cv2.VideoCapture(str(tmp_path / "out.avi")).get(cv2.CAP_PROP_FRAME_COUNT) == 3
    description, recipe, state = runs.load(tmp_path)
    found = list(dream_zoom.frames(dream_zoom.Predictor(description, recipe, state, 1), tmp_path / "in.png", 2, 1.5))
    first = levels / 255 + 0.1
    second = np.asarray(zoom(jax.numpy.float32(first)[None], 1.5))[0] + 0.1
    for frame, expected in zip(found, (first, second), strict=True):
        np.testing.assert_allclose(frame, 255 * expected, atol=0.51)  # rounded


def test_what_cannot_be_zoomed_into_is_said(dreamer, tmp_path, monkeypatch):
    Image.fromarray(np.zeros((32, 32, 3), np.uint8)).save(tmp_path / "in.png")
    (tmp_path / "text.png").write_text("no picture")

    def run(picture="in.png", output="out.mp4", *further):
        dream_zoom.main(
            [f"--run={tmp_path}", f"--input={tmp_path / picture}", f"--output={tmp_path / output}", *further]
        )

    with pytest.raises(UserError, match="at least 1 frame"):
        run("in.png", "out.mp4", "--frames=0")
    with pytest.raises(UserError, match=r"must end in \.mp4 or \.avi"):
        run("in.png", "out.gif")
    with pytest.raises(UserError, match=r"text\.png"):
        run("text.png")
    other = {**DESCRIPTION, "config": {**DESCRIPTION["config"], "system": "attacks.fgsm"}}
    monkeypatch.setattr(runs, "load", lambda folder: (other, None, None))
    with pytest.raises(UserError, match=r"is of attacks\.fgsm, not of interpret\.deep_dream"):
        run()
