"""Classes of pixels: brought back to the images' sizes, painted over them and written as palette PNGs."""

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.core import Recipe, State
from cvjax.ops.palettes import overlay, voc_palette
from cvjax.programs import apply

NAMES = ["background", *(f"class {index}" for index in range(1, 150))]
LEVELS = np.array([0, 7, 149])  # classes, painted in these levels of grey


def levels(image):
    return {"segmentation": jnp.round(image[..., 0] * 255).astype(jnp.int32)}


def predictor(transforms, size, names=NAMES, predict=levels, **settings):
    settings = {"eval_transforms": transforms, **settings}
    description = {"config": {"data": settings, "recipe": {"classes": names}}}
    recipe = Recipe({}, *[print] * 5, predict=lambda state, inputs, key: predict(inputs["image"]))
    described = description | {"batch": {"image": [[2, *size, 3], "float32"]}}
    return apply.Predictor(described, recipe, State(jnp.int32(0), {}, {}), batch=2)


def blocks(height, width, seed=0):
    """Blocks of 8 x 8 pixels, in three levels."""
    numbers = np.random.default_rng(seed).choice(LEVELS, (height // 8, width // 8))
    return np.kron(numbers, np.ones((8, 8))).astype(np.uint8)


def save(path, numbers):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.repeat(numbers[..., None], 3, -1)).save(path)


NEAREST = dict(method="nearest")
CASES = {
    "as it is": ([], (32, 48), {}, (32, 48)),
    "smaller": ([dict(op="resize", size=(16, 24), **NEAREST)], (16, 24), {}, (32, 48)),
    "larger": ([dict(op="resize", size=(64, 96), **NEAREST)], (64, 96), {}, (32, 48)),
    "letterboxed": ([dict(op="letterbox", size=96, **NEAREST)], (96, 96), {}, (32, 48)),
    "padded": ([dict(op="pad", padding=(3, 5))], (38, 58), {}, (32, 48)),
    "odd": ([], (35, 51), {}, (35, 51)),
}


@pytest.mark.parametrize("name", CASES)
def test_maps_come_back_in_the_size_of_the_original(name):
    transforms, size, settings, original = CASES[name]
    numbers = blocks(40, 56)[: original[0], : original[1]]
    applied = predictor(transforms, size, **settings)
    image = np.repeat(numbers[..., None], 3, -1).astype(np.float32) / 255
    [(_, outputs)] = applied([applied.prepare(image)])
    np.testing.assert_array_equal(outputs["segmentation"], numbers)


def test_what_a_transform_crops_is_void():
    applied = predictor([dict(op="center_crop", size=(16, 24))], (16, 24))
    numbers = blocks(32, 48)
    [(_, outputs)] = applied([applied.prepare(np.repeat(numbers[..., None], 3, -1).astype(np.float32) / 255)])
    expected = np.full((32, 48), 255)
    expected[8:24, 12:36] = numbers[8:24, 12:36]
    np.testing.assert_array_equal(outputs["segmentation"], expected)


def test_images_are_painted_and_maps_of_150_classes_can_be_trained_on(tmp_path, capsys):
    for index, split in enumerate(("train", "test")):
        save(tmp_path / f"in/{split}/a.png", blocks(32, 48, index))
    ops = [dict(op="separate"), dict(op="resize", size=(64, 96), **NEAREST)]  # an image to be predicted has no truth
    apply.apply_to_images(predictor(ops, (64, 96)), tmp_path / "in", tmp_path / "out")
    for index, split in enumerate(("train", "test")):
        numbers = blocks(32, 48, index)
        with Image.open(tmp_path / f"out/classes/{split}/a.png") as image:
            assert image.mode == "P"
            np.testing.assert_array_equal(np.asarray(image), numbers)
            np.testing.assert_array_equal(np.asarray(image.convert("RGB")), voc_palette()[numbers])
        painted = np.asarray(Image.open(tmp_path / f"out/{split}/a.png"))
        expected = overlay(np.repeat(numbers[..., None], 3, -1).astype(np.float32) / 255, numbers)
        np.testing.assert_allclose(painted, expected * 255, atol=0.51)
    assert not (tmp_path / "out/predictions.json").exists()
    chosen = {"folder": str(tmp_path / "in"), "batch": 1, "class_maps": {"class_map": str(tmp_path / "out/classes")}}
    opened = data.load(chosen, seed=0)
    assert opened.info["classes"] == tuple(NAMES)
    np.testing.assert_array_equal(next(opened.evaluate())["class_map"][0], blocks(32, 48, 1))


def test_classes_are_painted_on_a_video(tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (64, 32))
    for _ in range(3):
        writer.write(np.full((32, 64, 3), 15, np.uint8))
    writer.release()
    found = predictor([], (32, 64), predict=lambda image: {"segmentation": jnp.where(image[..., 0] > 0.5, 0, 15)})
    apply.apply_to_video(found, tmp_path / "in.avi", tmp_path / "out.avi")
    capture = cv2.VideoCapture(str(tmp_path / "out.avi"))
    frame = capture.read()[1][..., ::-1]
    assert int(capture.get(cv2.CAP_PROP_FRAME_COUNT)) == 3
    expected = 0.4 * 15 + 0.6 * voc_palette()[15].astype(float)
    np.testing.assert_allclose(frame.mean((0, 1)), expected, atol=8)  # MJPG's colours, and edges of its own
