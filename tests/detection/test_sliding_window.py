"""Sliding windows: by convolution as by crops, what a window shows as OpenCV resizes it, labels as loops give them."""

import dataclasses

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import sliding_window as sliding
from cvjax.errors import UserError

KEY = jax.random.key(0)
SIZES = ((8.0, 12.0), (10.0, 10.0), (21.0, 17.0))


@pytest.mark.parametrize(("window", "shape"), [(16, (40, 52)), (20, (20, 20)), (24, (41, 55))])
def test_a_convolution_equals_classifying_each_window(window, shape):
    net = sliding.WindowClassifier(3, window, 4, 8)
    params = net.init(KEY, jnp.zeros((1, window, window, 3)))
    images = jax.random.uniform(KEY, (2, *shape, 3))
    classify = lambda images: net.apply(params, images)  # noqa: E731
    by_convolution, by_crops = (
        jax.jit(lambda images, how=how: sliding.classify_windows(classify, images, window, how))(images)
        for how in (True, False)
    )
    rows, columns = ((side - window) // 4 + 1 for side in shape)
    assert by_crops.shape == (2, rows, columns, 4)
    # Sums of some hundred float32 products, added in another order.
    np.testing.assert_allclose(by_convolution, by_crops, atol=2e-5)
    if rows > 2:  # and each is the net's answer to the window cut out by hand
        alone = classify(images[1:, 8 : 8 + window, 4 : 4 + window])
        np.testing.assert_allclose(by_crops[1, 2, 1], alone[0, 0, 0], atol=2e-5)


def test_windows_tile_the_image_in_steps_of_the_stride():
    for (width, height), grid in zip(SIZES, sliding.window_boxes((48, 64), SIZES, 16), strict=True):
        np.testing.assert_allclose(grid[0, 0], [0, 0, width, height])
        np.testing.assert_allclose(np.diff(grid[..., 0], axis=1), width / 4, rtol=1e-5)
        np.testing.assert_allclose(np.diff(grid[..., 1], axis=0), height / 4, rtol=1e-5)
        x, y = grid[-1, -1, 2:]  # the last one reaches the border and begins less than a step before it had to
        assert 64 - 1e-3 <= x < 64 + width / 4 and 48 - 1e-3 <= y < 48 + height / 4
    assert sliding.window_boxes((8, 8), [(16.0, 16.0)], 16)[0].shape == (1, 1, 4)


def test_a_window_of_a_picture_is_the_window_of_its_box():
    """What training crops and what is found in the resized image are the same pixels."""
    image = jax.random.uniform(KEY, (48, 64, 3))
    for (width, height), grid in zip(SIZES, sliding.window_boxes((48, 64), SIZES, 16), strict=True):
        rows, columns = (20 + 4 * (count - 1) for count in grid.shape[:2])
        picture = sliding.show(image, jnp.array([0.0, 0.0, width, height]), 16, rows, columns)
        for row, column in [(0, 0), (1, 2), (-1, -1)]:
            alone = sliding.show(image, jnp.asarray(grid[row, column]), 16, 20, 20)
            y, x = 4 * np.arange(grid.shape[0])[row], 4 * np.arange(grid.shape[1])[column]
            np.testing.assert_allclose(alone, picture[y : y + 20, x : x + 20], atol=2e-4)  # places in float32


def test_a_window_shows_its_box_as_opencv_resizes_it():
    image = np.random.default_rng(0).uniform(size=(40, 40, 3)).astype(np.float32)
    shown = sliding.show(jnp.asarray(image), jnp.array([10.0, 8.0, 18.0, 16.0]), 16, 20, 20)
    expected = cv2.resize(image[7:17, 9:19], (20, 20), interpolation=cv2.INTER_LINEAR)
    np.testing.assert_allclose(shown[2:-2, 2:-2], expected[2:-2, 2:-2], atol=1e-5)
    shrunk = sliding.show(jnp.ones((40, 40, 3)), jnp.array([0.0, 0.0, 32.0, 32.0]), 16, 20, 20)
    np.testing.assert_allclose(shrunk[2:, 2:], 1.0, atol=1e-5)
    np.testing.assert_allclose(shrunk[0], 0.0)  # outside the image it is black


def test_windows_have_the_label_of_the_object_they_overlap_most():
    rng = np.random.default_rng(1)
    boxes = rng.uniform(0, 20, (4, 2))
    boxes = np.concatenate([boxes, boxes + rng.uniform(6, 12, (4, 2))], axis=1).astype(np.float32)
    windows = np.concatenate([boxes + rng.uniform(-2.5, 2.5, boxes.shape) for _ in range(40)]).astype(np.float32)
    labels, mask, ignored = np.array([2, 0, 1, 1]), np.array([1, 1, 1, 0], bool), np.array([0, 1, 0, 0], bool)
    found, certain = sliding.label_windows(*map(jnp.asarray, (windows, boxes, labels, mask, ignored)), 3, 0.6, 0.4)
    kinds = set()
    for window, label, sure in zip(windows, np.asarray(found), np.asarray(certain), strict=True):
        overlaps = []
        for box in boxes[mask]:
            width, height = np.minimum(window[2:], box[2:]) - np.maximum(window[:2], box[:2])
            both = max(width, 0) * max(height, 0)
            areas = [np.prod(corners[2:] - corners[:2]) for corners in (window, box)]
            overlaps.append(both / (sum(areas) - both))
        best = int(np.argmax(overlaps))
        kind = "object" if max(overlaps) >= 0.6 else "background" if max(overlaps) < 0.4 else "between"
        kinds.add(kind)
        assert label == (labels[best] if kind == "object" else 3)
        assert sure == (kind == "background" or (kind == "object" and not ignored[best]))
    assert kinds == {"object", "background", "between"}


def test_windows_are_drawn_near_objects():
    boxes = jnp.array([[10.0, 10.0, 20.0, 30.0], [40.0, 40.0, 44.0, 44.0], [0.0, 0.0, 64.0, 64.0]])
    near = sliding.near_windows(KEY, boxes, jnp.array([True, True, False]), 500, 0.25, 1.5)
    centres, sizes = (near[:, :2] + near[:, 2:]) / 2, near[:, 2:] - near[:, :2]
    first = np.asarray(centres[:, 0] < 30)
    assert 190 < first.sum() < 310  # each as likely: 250 +- 11
    for mine, middle, size in [(first, (15, 20), (10, 20)), (~first, (42, 42), (4, 4))]:
        away = np.abs(centres[mine] - np.array(middle)) / np.array(size)
        factors = sizes[mine] / np.array(size)
        assert 0.22 < away.max() <= 0.2501 and 0.66 < factors.min() < 0.72 and 1.4 < factors.max() < 1.501


def test_finds_the_hardest_background():
    logits = jnp.array([[0.0, 5.0], [5.0, 0.0], [9.0, 0.0], [1.0, 0.0], [8.0, 0.0]])  # the last class is background
    labels, certain = jnp.array([1, 1, 0, 1, 1]), jnp.array([True, True, True, True, False])
    found = sliding.hardest_background(logits, labels, certain, 2)
    np.testing.assert_array_equal(found, [1, 3])  # neither the object nor the uncertain window


# --- the recipe ---------------------------------------------------------------------------------------------------


def tiny(**changes):
    small = dict(window=16, width=4, hidden=8, near=6, far=12, hardest=4, candidates=40)
    arguments = dict(shape=(32, 48, 3), classes=("blue", "red"), sizes=((10.0, 10.0),), ema=0.9)
    small |= dict(detection=dataclasses.replace(sliding.DETECTION, max_detections=8))
    return sliding.recipe(**{**arguments, **small, **changes})


def squares(count=16, seed=0):
    """Scenes of two red or blue squares of 10 pixels side by side on noise."""
    rng = np.random.default_rng(seed)
    left = np.stack([rng.integers(0, 13, count), rng.integers(24, 38, count)], axis=1)
    top, labels = rng.integers(0, 22, (count, 2)), rng.integers(0, 2, (count, 2))
    images = rng.uniform(0.3, 0.7, (count, 32, 48, 3)).astype(np.float32)
    for image, xs, ys, kinds in zip(images, left, top, labels, strict=True):
        for x, y, kind in zip(xs, ys, kinds, strict=True):
            image[y : y + 10, x : x + 10] = [1, 0, 0] if kind else [0, 0, 1]
    boxes = np.stack([left, top, left + 10, top + 10, np.zeros_like(left)], axis=-1)[..., :4].astype(np.float32)
    nothing = np.zeros((count, 2), bool)
    marks = {"mask": ~nothing, "difficult": nothing, "crowd": nothing}
    return {"image": images, "boxes": boxes, "labels": labels.astype(np.int32), **marks}


@pytest.fixture(scope="module")
def trained():
    """A recipe, its state after some steps, and the last metrics."""
    recipe, batch = tiny(optimiser={"name": "adam", "learning_rate": 1e-2}), squares()
    state, step = draw_state(recipe, batch), jax.jit(recipe.train_step)
    for _ in range(60):
        state, metrics = step(state, batch, jax.random.fold_in(KEY, state.step))
    return recipe, state, step, metrics


def test_learns_to_detect_squares(trained):
    recipe, state, _, metrics = trained
    assert metrics["share/right"] > 0.8 and 0.1 < metrics["share/objects"] < 0.7
    batch = squares(seed=1)
    outputs = jax.device_get(recipe.eval_step(state, batch, KEY))
    assert recipe.score(iter([(batch, outputs)]))["map_voc07"] > 0.7  # below .1 untrained
    shown = recipe.visualise(state, batch, KEY)["detections"]
    assert shown.shape == (16, 256, 768, 3) and shown.min() >= 0 and shown.max() <= 1


def test_detections_are_the_same_by_crops_and_by_convolution(trained):
    _, state, _, _ = trained
    images = {"image": jnp.asarray(squares(4, seed=2)["image"])}
    by_convolution, by_crops = (tiny(convolutional=how).predict(state, images, KEY) for how in (True, False))
    np.testing.assert_array_equal(by_crops["labels"], by_convolution["labels"])
    np.testing.assert_allclose(by_crops["boxes"], by_convolution["boxes"], atol=1e-4)
    np.testing.assert_allclose(by_crops["scores"], by_convolution["scores"], atol=1e-4)
    assert by_crops["detected"].sum() >= 8


def test_flip_test_makes_detections_of_mirrored_images_mirrored(trained):
    _, state, _, _ = trained
    images = jnp.asarray(squares(4, seed=3)["image"])
    detection = dataclasses.replace(sliding.DETECTION, flip_test=True, max_detections=2, score_threshold=0.5)
    predict = tiny(detection=detection).predict
    found, mirrored = (predict(state, {"image": given}, KEY) for given in (images, images[:, :, ::-1]))
    boxes = np.asarray(mirrored["boxes"])[..., [2, 1, 0, 3]]
    sure = np.asarray(found["detected"])
    assert sure.sum() >= 6
    np.testing.assert_allclose(found["boxes"][sure], np.abs(boxes - [48, 0, 48, 0])[sure], atol=1e-3)
    np.testing.assert_allclose(found["scores"], mirrored["scores"], atol=1e-4)


@pytest.mark.parametrize("kind", ["padding", "degenerate", "difficult"])
def test_steps_are_finite_without_proper_objects(trained, kind):
    _, state, step, _ = trained
    batch = squares()
    boxes = {"padding": np.zeros_like(batch["boxes"]), "degenerate": batch["boxes"][..., [0, 1, 0, 1]]}
    batch |= {"boxes": boxes.get(kind, batch["boxes"]), "mask": np.full((16, 2), kind != "padding")}
    batch |= {"difficult": np.full((16, 2), kind == "difficult")}
    new, metrics = step(state, batch, KEY)
    assert float(metrics["share/objects"]) == 0 and float(metrics["share/right"]) > 0
    assert finite(new, metrics)


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_and_small(trained, how):
    recipe, _, step, _ = trained
    batch = squares()
    state = draw_state(recipe, batch)
    usual, (new, metrics) = (step(state, b, KEY) for b in (batch, spoil(batch, how)))
    assert finite(new, metrics) and metrics["loss/cross_entropy"] < 3 * usual[1]["loss/cross_entropy"]
    if how in ("no objects", "rubbish in padding alone", "outside", "inside out"):
        assert float(metrics["share/objects"]) == 0 < usual[1]["share/objects"]


def test_the_average_detects(trained):
    recipe, state, step, _ = trained
    new, _ = step(state, squares(), KEY)
    decay = min(0.9, 61 / 70)  # .871
    latest = {"classifier": {"params": new.params["classifier"]}}
    expected = jax.tree.map(lambda old, new: decay * old + (1 - decay) * new, state.average, latest)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.average, expected)
    garbage = state.replace(params=jax.tree.map(jnp.zeros_like, state.params))
    images = {"image": jnp.asarray(squares(2)["image"])}
    found, same = (recipe.predict(each, images, KEY) for each in (state, garbage))
    jax.tree.map(np.testing.assert_array_equal, found, same)
    assert not jax.eval_shape(tiny(ema=0.0).init, KEY, squares(1)).average


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"window": 18}, "16, 20, 24"),
        ({"sizes": ()}, "boxes to find"),
        ({"hardest": 13}, "at most config.recipe.far=12"),
    ],
)
def test_refuses_arguments_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)
