"""YOLO's loss against loops over cells and predictors in NumPy, and its recipe."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.core import variables
from cvjax.detection import yolo
from cvjax.detection.detector import Detection
from cvjax.errors import UserError

KEY = jax.random.key(0)
TINY = dict(
    layers=((8, 3, 1), yolo.POOL, (8, 3, 1), yolo.POOL), hidden=16, detection=Detection(0.001, max_detections=6)
)


def scenes(count=3, objects=4, size=(32, 48), classes=3, seed=0):
    """Random boxes, some of them padding, on noise."""
    rng = np.random.default_rng(seed)
    near = rng.uniform(0, np.array(size[::-1]) * 0.7, (count, objects, 2))
    far = np.minimum(near + rng.uniform(4, 14, near.shape), size[::-1])
    boxes = np.concatenate([near, far], axis=-1).astype(np.float32)
    mask = np.arange(objects) < rng.integers(1, objects + 1, (count, 1))
    nothing = np.zeros((count, objects), bool)
    return {
        "image": rng.uniform(size=(count, *size, 3)).astype(np.float32),
        "boxes": boxes * mask[..., None],
        "labels": rng.integers(0, classes, (count, objects)).astype(np.int32) * mask,
        "mask": mask,
        "difficult": nothing,
        "crowd": nothing,
    }


# --- the loss, cell by cell ---------------------------------------------------------------------------------------


def overlap_of(a, b):
    width = max(0.0, min(a[0] + a[2] / 2, b[0] + b[2] / 2) - max(a[0] - a[2] / 2, b[0] - b[2] / 2))
    height = max(0.0, min(a[1] + a[3] / 2, b[1] + b[3] / 2) - max(a[1] - a[3] / 2, b[1] - b[3] / 2))
    union = a[2] * a[3] + b[2] * b[3] - width * height
    return width * height / union if union > 0 else 0.0


def loss_by_loops(outputs, boxes, labels, mask, predictors, size):
    """Equation 3 for one image with its gradient, in float64; boxes as shares of the image, as Darknet has them."""
    rows, columns, features = outputs.shape
    parts = dict(coordinates=0.0, object=0.0, no_object=0.0, classes=0.0)
    gradient, owners = np.zeros(outputs.shape), {}
    for box, label in zip(boxes[mask], labels[mask], strict=True):
        x1, y1, x2, y2 = box / np.array([size[1], size[0]] * 2)
        x, y, w, h = (x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1
        owners.setdefault((int(y * rows), int(x * columns)), (x, y, w, h, label))  # the first object of a cell
    for row in range(rows):
        for column in range(columns):
            out, slope = outputs[row, column], gradient[row, column]
            chosen = None
            if (row, column) in owners:
                *truth, label = owners[row, column]
                overlaps, distances = [], []
                for j in range(predictors):
                    px, py, pw, ph = out[5 * j : 5 * j + 4]
                    guess = ((column + px) / columns, (row + py) / rows, pw**2, ph**2)
                    overlaps.append(overlap_of(guess, truth))
                    distances.append(np.sqrt(np.sum(np.subtract(guess, truth) ** 2)))
                chosen = int(np.argmax(overlaps)) if max(overlaps) > 0 else int(np.argmin(distances))
                target = (truth[0] * columns - column, truth[1] * rows - row, truth[2] ** 0.5, truth[3] ** 0.5)
                for place, wanted in enumerate(target, start=5 * chosen):
                    parts["coordinates"] += 5 * (out[place] - wanted) ** 2
                    slope[place] = 10 * (out[place] - wanted)
                confidence = out[5 * chosen + 4]
                parts["object"] += (confidence - overlaps[chosen]) ** 2
                slope[5 * chosen + 4] = 2 * (confidence - overlaps[chosen])
                for place in range(5 * predictors, features):
                    wanted = float(place - 5 * predictors == label)
                    parts["classes"] += (out[place] - wanted) ** 2
                    slope[place] = 2 * (out[place] - wanted)
            for j in range(predictors):
                if j != chosen:
                    parts["no_object"] += 0.5 * out[5 * j + 4] ** 2
                    slope[5 * j + 4] = out[5 * j + 4]
    return parts, gradient


@pytest.mark.parametrize("predictors", [1, 2, 3])
@pytest.mark.parametrize("spread", [0.5, 0.02])  # the second: predictions so small and far off that IoUs are 0
def test_loss_and_gradient_equal_loops_over_cells(predictors, spread):
    size = (32, 48)
    batch = scenes(count=6, size=size)
    outputs = np.random.default_rng(1).normal(0, spread, (6, 4, 6, 5 * predictors + 3)).astype(np.float32)
    if spread < 0.1:
        outputs[..., [5 * j for j in range(predictors)]] += np.arange(predictors) - 1  # far off, each its own way
    arguments = [jnp.asarray(batch[name]) for name in ("boxes", "labels", "mask")]

    def total(outputs):
        parts = yolo.losses(outputs, *arguments, predictors, size)
        parts.pop("iou")
        return sum(parts.values()).sum(), parts

    slopes, parts = jax.jit(jax.grad(total, has_aux=True))(jnp.asarray(outputs))
    for image in range(6):
        rows = (batch[name][image] for name in ("boxes", "labels", "mask"))
        expected, gradient = loss_by_loops(outputs[image].astype(np.float64), *rows, predictors, size)
        for name, value in expected.items():  # float32 sums of some hundred squares
            np.testing.assert_allclose(parts[name][image], value, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(slopes[image], gradient, rtol=1e-4, atol=1e-5)


def test_responsible_is_the_highest_iou_or_else_the_nearest():
    truth = jnp.array([10.0, 10.0, 20.0, 20.0])
    good, better, near, far = (
        [10.0, 10.0, 15.0, 20.0],
        [10.0, 10.0, 18.0, 20.0],
        [21.0, 10.0, 31.0, 20.0],
        [40.0, 10.0, 50.0, 20.0],
    )
    choose = lambda *boxes: yolo.choose_responsible(jnp.array(boxes), truth, (64, 64))  # noqa: E731
    index, overlap = choose(good, better, near)
    assert int(index) == 1
    np.testing.assert_allclose(overlap, [0.5, 0.8, 0.0], rtol=1e-6)
    assert int(choose(far, near)[0]) == 1 and int(choose(near, far)[0]) == 0
    assert int(choose(near, good)[0]) == 1  # the IoU decides wherever one is above 0
    assert int(choose(good, good)[0]) == 0


def test_a_cell_keeps_the_first_of_two_objects_and_a_centre_outside_goes_to_the_nearest_cell():
    boxes = jnp.array([[[0, 0, 9, 9], [2, 2, 10, 10], [1, 1, 4, 4], [30, 30, 40, 36]]], jnp.float32)
    index, occupied = yolo.objects_of_cells(boxes, jnp.array([[False, True, True, True]]), (2, 2), (32, 32))
    np.testing.assert_array_equal(occupied, [[[True, False], [False, True]]])
    assert int(index[0, 0, 0]) == 1 and int(index[0, 1, 1]) == 3  # padding is nobody's, and row 1 comes before row 2


def test_place_inverts_unplace():
    coordinates = jnp.zeros((1, 2, 4, 1, 4)).at[0, 1, 2, 0].set(jnp.array([0.5, 0.25, 0.5, 0.75]))
    box = yolo.place(coordinates, (40, 80))[0, 1, 2, 0]
    np.testing.assert_allclose(box, [40, 13.75, 60, 36.25])  # centre (50, 25), size 80 / 4 and 40 * 9 / 16
    boxes = jnp.asarray(np.sort(np.random.default_rng(0).uniform(0, 40, (2, 3, 5, 2, 2)), axis=3).reshape(2, 3, 5, 4))
    back = yolo.place(yolo.unplace(boxes, (40, 40))[..., None, :], (40, 40))[..., 0, :]
    np.testing.assert_allclose(back, boxes, atol=1e-4)  # float32, pixels


DEGENERATE = {
    "padding": [0, 0, 0, 0],
    "rubbish": [np.nan, np.inf, 4, 4],
    "a point": [5, 5, 5, 5],
    "inside out": [9, 9, 4, 4],
    "outside": [70, 3, 80, 9],
}


@pytest.mark.parametrize("kind", [*DEGENERATE, "no overlap"])
def test_loss_and_gradients_are_finite_without_proper_objects(kind):
    boxes = DEGENERATE.get(kind, [1, 1, 2, 2])
    padding = kind in ("padding", "rubbish")
    rows = (jnp.array([[boxes]], jnp.float32), jnp.full((1, 1), 1000 if padding else 0), jnp.array([[not padding]]))
    outputs = jnp.zeros((1, 2, 2, 12))

    def total(outputs):
        parts = yolo.losses(outputs, *rows, 2, (16, 16))
        return sum(parts.values()).sum()

    value, gradient = jax.jit(jax.value_and_grad(total))(outputs)
    assert np.isfinite(value) and np.isfinite(gradient).all()
    assert (float(value) > 0) == (kind == "no overlap")  # outputs of 0 are right where there is nothing


def test_objects_are_clipped_to_the_image():
    outputs = jnp.asarray(np.random.default_rng(0).normal(size=(1, 2, 3, 12)), jnp.float32)
    compute = jax.jit(
        lambda box: yolo.losses(outputs, box, jnp.zeros((1, 1), jnp.int32), box[..., 0] < 99, 2, (16, 24))
    )
    whole, cut = (compute(jnp.array([[box]], jnp.float32)) for box in ([-50, 7, 9, 90], [0, 7, 9, 16]))
    jax.tree.map(np.testing.assert_array_equal, whole, cut)


# --- the recipe ---------------------------------------------------------------------------------------------------


def tiny(**changes):
    arguments = dict(shape=(32, 48, 3), classes=3, batch_norm=True, optimiser={"name": "adam", "learning_rate": 3e-3})
    return yolo.recipe(**{**arguments, **TINY, **changes})


def squares():
    """Scenes with a blue or red square in the left half and another in the right half; the last row is padding."""
    batch = scenes(count=8, objects=3, classes=2)
    batch["mask"] = np.tile([True, True, False], (8, 1))
    rng = np.random.default_rng(0)
    near = np.stack([rng.integers((0, 24, 0), (12, 36, 12), (8, 3)), rng.integers(0, 20, (8, 3))], axis=-1)
    batch["boxes"] = np.concatenate([near, near + rng.integers(8, 12, (8, 3, 2))], axis=-1).astype(np.float32)
    for image, slot in np.ndindex(8, 2):
        x1, y1, x2, y2 = batch["boxes"][image, slot].astype(int)
        batch["image"][image, y1:y2, x1:x2] = [4, 0, 0] if batch["labels"][image, slot] else [0, 0, 4]
    return batch


@pytest.fixture(scope="module")
def trained():
    """A recipe, its states before and after 150 steps on one batch, the step, the batch, first and last metrics."""
    recipe, batch = tiny(classes=("blue", "red"), dropout=0.0, ema=0.9), squares()
    first, step = draw_state(recipe, batch), jax.jit(recipe.train_step)
    state, usual = step(first, batch, KEY)
    for _ in range(149):
        state, metrics = step(state, batch, KEY)
    return recipe, first, state, step, batch, usual, metrics


def test_learns_to_detect_squares(trained):
    recipe, _, state, _, batch, first, metrics = trained
    assert metrics["loss/total"] < 0.2 * first["loss/total"] and metrics["iou"] > 0.6 > first["iou"]
    figures = recipe.score(iter([(batch, jax.device_get(recipe.eval_step(state, batch, KEY)))]))
    assert figures["map_voc07"] > 0.8 and {"voc07/blue", "voc07/red"} <= figures.keys()
    shown = recipe.visualise(state, batch, KEY)["detections"]
    assert shown.shape == (8, 256, 768, 3) and shown.min() >= 0 and shown.max() <= 1


def test_scores_are_class_probability_times_confidence():
    outputs = jnp.zeros((1, 1, 2, 7)).at[0, 0, 1].set(jnp.array([0.5, 0.5, 0.5, 1.0, 0.8, 0.25, 1.5]))
    boxes, scores, labels = yolo.candidates(outputs, 1, (10, 20))
    np.testing.assert_allclose(scores, [[0, 0, 0.2, 0.8]])  # a probability of 1.5 is 1
    np.testing.assert_array_equal(labels, [[0, 1, 0, 1]])
    np.testing.assert_allclose(boxes[0, 2:], [[12.5, 0, 17.5, 10]] * 2)
    np.testing.assert_allclose(yolo.candidates(-outputs, 1, (10, 20))[1], 0)  # minus times minus is no score


def test_the_average_of_parameters_and_statistics_is_what_detects(trained):
    recipe, first, state, step, batch, *_ = trained
    new, _ = step(first, batch, KEY)
    latest = {"yolo": variables(new, "yolo", averaged=False)}
    expected = jax.tree.map(lambda old, new: 0.1 * old + 0.9 * new, first.average, latest)  # (1 + 0) / (10 + 0) is kept
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), new.average, expected)
    params, stats = jax.tree.map(jnp.ones_like, (state.params, state.stats))
    changed = state.replace(params=params, stats=stats)
    found, same = (recipe.eval_step(each, batch, KEY) for each in (state, changed))
    jax.tree.map(np.testing.assert_array_equal, found, same)
    assert not jax.eval_shape(tiny().init, KEY, batch).average


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_and_small(trained, how):
    _, first, _, step, batch, usual, _ = trained
    after, metrics = step(first, spoil(batch, how), KEY)
    assert finite(after, metrics) and metrics["loss/total"] < 3 * usual["loss/total"]


def test_a_step_weighs_the_parts_of_the_mean_loss_as_asked():
    batch = jax.tree.map(jnp.asarray, scenes())
    asked, layers = dict(coordinate_weight=3.0, no_object_weight=0.25), ((4, 3, 1), yolo.POOL)
    options = dict(layers=layers, dropout=0.0, batch_norm=False, optimiser={"name": "sgd", "learning_rate": 1e-3})
    recipe = tiny(**asked, **options)
    state = draw_state(recipe, batch)
    net = yolo.Yolo(layers, 13, hidden=16, dropout=0.0)

    @jax.jit
    @jax.value_and_grad
    def expect(params):
        outputs = net.apply({"params": params}, batch["image"], train=True)
        truth = (batch[name] for name in ("boxes", "labels", "mask"))
        parts = yolo.losses(outputs, *truth, 2, (32, 48))
        parts["coordinates"] *= asked["coordinate_weight"] / 5
        parts["no_object"] *= asked["no_object_weight"] / 0.5
        return (sum(parts.values()) - parts["iou"]).mean()

    value, gradient = expect(state.params["yolo"])
    after, metrics = jax.jit(recipe.train_step)(state, batch, KEY)
    assert metrics["loss/total"] == pytest.approx(float(value), rel=1e-5)
    expected = jax.tree.map(lambda p, g: p - 1e-3 * g, state.params["yolo"], gradient)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), after.params["yolo"], expected)
    assert not after.stats


def test_difficult_and_crowd_objects_are_not_trained_on(trained):
    _, first, _, step, batch, usual, _ = trained
    rows = np.zeros_like(batch["mask"])
    rows[0, 0] = True
    without = {**batch, "mask": batch["mask"] & ~rows}
    expected = step(first, without, KEY)[1]
    for name in ("difficult", "crowd"):
        jax.tree.map(np.testing.assert_array_equal, step(first, {**batch, name: rows}, KEY)[1], expected)
    assert float(usual["loss/classes"]) != float(expected["loss/classes"])


def test_flip_test_makes_detections_of_mirrored_images_mirrored(trained):
    recipe, _, state, _, batch, *_ = trained
    predict = tiny(classes=2, ema=0.9, detection=dataclasses.replace(TINY["detection"], flip_test=True)).predict
    found, mirrored = (predict(state, {"image": x}, KEY) for x in (batch["image"], batch["image"][:, :, ::-1]))
    assert found["detected"].all() and found["boxes"].shape == (8, 6, 4)
    boxes = np.asarray(mirrored["boxes"])[..., [2, 1, 0, 3]]
    np.testing.assert_allclose(found["boxes"], np.abs(boxes - [48, 0, 48, 0]), atol=1e-3)
    np.testing.assert_allclose(found["scores"], mirrored["scores"], atol=1e-5)
    plain = recipe.predict(state, {"image": batch["image"]}, KEY)
    assert np.abs(plain["scores"] - found["scores"]).max() > 1e-6


def test_refuses_images_smaller_than_a_cell():
    with pytest.raises(UserError, match="64 pixels into one cell"):
        yolo.recipe(shape=(32, 32, 3), classes=2)
