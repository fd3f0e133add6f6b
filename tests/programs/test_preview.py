"""A preview shows a batch after its transforms, with what belongs to each image."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from processes import environment

from cvjax import config
from cvjax.errors import UserError
from cvjax.ops.drawing import colour
from cvjax.ops.palettes import paint
from cvjax.programs import preview


def test_boxes_and_masks_are_drawn_where_they_are():
    mask = np.zeros((1, 3, 64, 64), bool)
    mask[0, 0, 20:30, 20:30] = True
    batch = {
        "image": np.zeros((1, 64, 64, 3), np.float32),
        "boxes": np.float32([[[8, 10, 40, 50], [0, 0, 9, 9], [0, 0, 0, 0]]]),
        "labels": np.int32([[2, 1, 0]]),
        "mask": np.array([[True, False, False]]),  # one object, two rows of padding
        "masks": mask,
        "target": np.ones((1, 64, 64, 1), np.float32),
        "scale": np.zeros((1, 4), np.float32),
        "keypoints": np.full((1, 3, 2, 2), 35.5, np.float32),
        "visibility": np.int32([[[0, 2], [0, 0], [0, 0]]]),
    }
    drawn = preview.draw_batch(batch, ("a", "b", "cat"))
    assert drawn.keys() == {"image", "target"} and drawn["image"].shape == (1, 256, 256, 3)
    image = drawn["image"][0]
    np.testing.assert_allclose(image[4 * 25, 4 * 25], 0.45 * np.float32(colour(0)), atol=0.01)  # the mask
    np.testing.assert_allclose(image[4 * 45, 4 * 8], colour(0), atol=0.01)  # the box's left edge
    np.testing.assert_allclose(image[4 * 35 + 2, 4 * 35 + 2], colour(0), atol=0.01)  # the joint
    assert not image[:30, :30].any()  # padding has no box
    assert (drawn["target"] == 1).all()


def test_maps_are_drawn_in_the_colours_of_their_numbers():
    numbers = np.int32([[[0, 1], [15, 255]]])
    drawn = preview.draw_batch({"class_map": numbers, "label": np.int32([3])}, ())
    assert drawn.keys() == {"class_map"} and drawn["class_map"].shape == (1, 256, 256, 3)
    np.testing.assert_allclose(drawn["class_map"][:, ::128, ::128], paint(numbers))


def test_a_preview_is_written_and_nothing_is_trained(tmp_path, capsys):
    preview.preview(config.load("configs/yolov2_scenes.py:smoke"), tmp_path)
    assert {path.name for path in (tmp_path / "preview").iterdir()} == {"train.png", "eval.png"}
    assert np.asarray(Image.open(tmp_path / "preview" / "train.png")).any()
    assert [path.name for path in tmp_path.iterdir()] == ["preview"]
    shown = capsys.readouterr().out
    assert "boxes: float32[16, 8, 4], 0 to 6" in shown and "image: float32[16, 64, 64, 3]" in shown
    own = config.load("configs/own_vae.py")
    own.data.folder = str(tmp_path)
    with pytest.raises(UserError, match=r"--workdir=.* is in .*, whose images are examples"):
        preview.preview(own, tmp_path / "run")
    broken = config.load("configs/yolov2_scenes.py:smoke")
    broken.data.name = "digit_scene/smoke"
    with pytest.raises(UserError, match="Did you mean"):
        preview.preview(broken, tmp_path)


def test_the_flag_of_train_draws_and_stops(tmp_path):
    command = [sys.executable, "train.py", "--config=configs/vae_digits.py:smoke", "--preview", f"--workdir={tmp_path}"]
    where = dict(cwd=Path(__file__).parents[2], env=environment(), text=True)
    done = subprocess.run(command, **where, capture_output=True, timeout=120)
    assert done.returncode == 0 and "train.png: 16 of a batch" in done.stdout, done.stderr
    assert {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.png")} == {
        "preview/train.png",
        "preview/eval.png",
    }
    assert not (tmp_path / "config.json").exists()
