"""The region layer against loops over images, cells, anchors and objects, written from what Darknet does."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import region

ANCHORS = ((1.0, 1.5), (2.5, 1.0), (2.0, 3.0))
GRID, STRIDE, CLASSES, OBJECTS = (3, 4), 8, 5, 4


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def overlap_of(a, b):
    width = max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
    height = max(0.0, min(a[3], b[3]) - max(a[1], b[1]))
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - width * height
    return width * height / both if both > 0 else 0.0


def predicted_box(x, row, column, anchor):
    """Corners in cells."""
    centre = np.array([column + sigmoid(x[0]), row + sigmoid(x[1])])
    half = np.array(ANCHORS[anchor]) * np.exp(x[2:4]) / 2
    return [*(centre - half), *(centre + half)]


def delta_of_box(x, row, column, anchor, target, scale):
    """What Darknet adds to the gradient for a box, target in cells as centre and size."""
    centre = sigmoid(x[:2])
    toward = np.array([target[0] - column, target[1] - row]) - centre
    sizes = np.log(np.array(target[2:]) / np.array(ANCHORS[anchor])) - x[2:4]
    return np.concatenate([scale * toward * centre * (1 - centre), scale * sizes])


def loops(outputs, boxes, labels, mask, *, prior, rescore):
    """Darknet's `delta`, the negative gradient, of one image, and the number of the predictor of each object."""
    delta, chosen = np.zeros_like(outputs), []
    true = boxes / STRIDE
    for row, column, anchor in np.ndindex(*GRID, len(ANCHORS)):
        x = outputs[row, column, anchor]
        ious = [overlap_of(predicted_box(x, row, column, anchor), b) for b, m in zip(true, mask, strict=True) if m]
        o = sigmoid(x[4])
        delta[row, column, anchor, 4] = (0 - o) * o * (1 - o) * (max(ious, default=0) <= 0.6)
        if prior:
            target = [column + 0.5, row + 0.5, *ANCHORS[anchor]]
            delta[row, column, anchor, :4] = delta_of_box(x, row, column, anchor, target, 0.01)
    for box, label, present in zip(true, labels, mask, strict=True):
        width, height = box[2] - box[0], box[3] - box[1]
        if not present or width <= 0 or height <= 0:
            chosen.append(None)
            continue
        x_centre, y_centre = (box[0] + box[2]) / 2, (box[1] + box[3]) / 2
        row, column = min(int(y_centre), GRID[0] - 1), min(int(x_centre), GRID[1] - 1)
        likeness = [overlap_of([0, 0, width, height], [0, 0, *anchor]) for anchor in ANCHORS]
        anchor = int(np.argmax(likeness))
        chosen.append((row, column, anchor))
        x, at = outputs[row, column, anchor], delta[row, column, anchor]
        share = width * height / (GRID[0] * GRID[1])
        at[:4] = delta_of_box(x, row, column, anchor, [x_centre, y_centre, width, height], 2 - share)
        o = sigmoid(x[4])
        goal = overlap_of(predicted_box(x, row, column, anchor), box) if rescore else 1.0
        at[4] = 5 * (goal - o) * o * (1 - o)
        odds = np.exp(x[5:] - x[5:].max())
        at[5:] = (np.arange(CLASSES) == label) - odds / odds.sum()
    return delta, chosen


def examples(seed=0, images=3):
    """Random images: two of their objects share a predictor, one is padding, and some predictions are nearly right."""
    generator = np.random.default_rng(seed)
    outputs = generator.normal(size=(images, *GRID, len(ANCHORS), 5 + CLASSES))
    corner = generator.uniform(0, 16, size=(images, OBJECTS, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(4, 20, size=corner.shape)], axis=-1)
    boxes[:, 1] = boxes[:, 0] + 0.01
    boxes = np.minimum(boxes, [32, 24, 32, 24])
    labels = generator.integers(CLASSES, size=(images, OBJECTS))
    mask = np.ones((images, OBJECTS), bool)
    mask[:, 3] = False
    for image in range(images):  # a neighbour that sees the third object nearly as it is
        x1, y1, x2, y2 = boxes[image, 2] / STRIDE
        row, column = int((y1 + y2) / 2), int((x1 + x2) / 2)
        for anchor in range(len(ANCHORS)):
            size = np.log(np.array([x2 - x1, y2 - y1]) / ANCHORS[anchor])
            place = np.array([(x1 + x2) / 2 - column, (y1 + y2) / 2 - row]).clip(0.05, 0.95)
            outputs[image, row, column, anchor, :4] = [*np.log(place / (1 - place)), *size]
    return outputs, boxes, labels, mask


def to_jax(outputs, boxes, labels, mask):
    return jnp.float32(outputs), jnp.float32(boxes), jnp.int32(labels), jnp.asarray(mask)


@functools.partial(jax.jit, static_argnums=5)
@functools.partial(jax.grad, has_aux=True)
def gradient(outputs, boxes, labels, mask, prior_weight, rescore):
    """The gradient of the whole loss, and its parts."""
    weights = region.RegionLoss(rescore=rescore)
    parts, counts = region.losses(outputs, boxes, labels, mask, ANCHORS, STRIDE, weights, prior_weight)
    return sum(parts.values()).sum(), (parts, counts)


@pytest.mark.parametrize("prior", [False, True])
@pytest.mark.parametrize("rescore", [False, True])
def test_gradient_is_darknets_delta(prior, rescore):
    given = examples()

    ours, _ = gradient(*to_jax(*given), jnp.float32(0.01 * prior), rescore)
    theirs = np.stack([loops(*image, prior=prior, rescore=rescore)[0] for image in zip(*given, strict=True)])
    free = [np.sum(delta[..., 4] == 0) for delta in theirs]
    assert min(free) > 0  # the case of a good prediction that is left alone occurs
    np.testing.assert_allclose(ours, -theirs, atol=2e-5)  # float32; the largest entries are near 10


def test_assigns_by_cell_and_shape_alone_and_the_last_object_wins():
    outputs, boxes, labels, mask = examples(seed=1, images=8)
    predictor, assigned = region.assign(jnp.float32(boxes), jnp.asarray(mask), ANCHORS, GRID, STRIDE)
    for image in range(8):
        _, chosen = loops(outputs[image], boxes[image], labels[image], mask[image], prior=False, rescore=False)
        numbers = [c and int(np.ravel_multi_index(c, (*GRID, len(ANCHORS)))) for c in chosen]
        assert numbers[0] == numbers[1] and numbers[3] is None
        present = [n is not None and n not in numbers[i + 1 :] for i, n in enumerate(numbers)]
        assert assigned[image].tolist() == present
        assert [int(p) for p, a in zip(predictor[image], present, strict=True) if a] == [
            n for n, a in zip(numbers, present, strict=True) if a
        ]


def test_a_centre_outside_belongs_to_the_nearest_cell():
    boxes = jnp.array([[[-30.0, -30.0, -20.0, -10.0], [100.0, 100.0, 108.0, 112.0]]])
    predictor, assigned = region.assign(boxes, jnp.ones((1, 2), bool), ANCHORS, GRID, STRIDE)
    assert assigned.all()
    assert (predictor[0] // len(ANCHORS)).tolist() == [0, GRID[0] * GRID[1] - 1]


def test_decodes_boxes():
    outputs = examples()[0]
    decoded = np.asarray(region.decode(jnp.float32(outputs), ANCHORS, STRIDE))
    for image, row, column, anchor in np.ndindex(*outputs.shape[:-1]):
        expected = np.multiply(predicted_box(outputs[image, row, column, anchor], row, column, anchor), STRIDE)
        np.testing.assert_allclose(decoded[image, row, column, anchor], expected, rtol=1e-5, atol=1e-4)
    assert np.isfinite(region.decode(jnp.full((1, *GRID, 3, 10), 1e4), ANCHORS, STRIDE)).all()


def test_counts_what_darknet_prints():
    given = examples()
    _, (_, counts) = gradient(*to_jax(*given), jnp.float32(0), True)
    expected = []
    for outputs, boxes, labels, mask in zip(*given, strict=True):
        chosen = loops(outputs, boxes, labels, mask, prior=False, rescore=False)[1]
        last = {place: box / STRIDE for place, box in zip(chosen, boxes, strict=True) if place}
        expected.append([len(last), sum(overlap_of(predicted_box(outputs[p], *p), box) for p, box in last.items())])
    np.testing.assert_allclose(np.stack([counts["objects"], counts["iou"]], -1), expected, rtol=1e-5)


DEGENERATE = {
    "no objects": ([[0, 0, 0, 0]], [False]),
    "no width": ([[9, 3, 9, 12]], [True]),
    "a point": ([[9, 9, 9, 9]], [True]),
    "inside out": ([[20, 12, 8, 4]], [True]),
    "outside": ([[90, 90, 99, 99]], [True]),
    "as thin as float32 goes": ([[8, 8, 8.000001, 16]], [True]),
    "rubbish in padding": ([[np.nan, np.inf, -np.inf, 4]], [False]),
    "rubbish": ([[np.nan, 4, 8, 8]], [True]),
}


@pytest.mark.parametrize("name", DEGENERATE)
def test_degenerate_objects_give_finite_losses_and_gradients(name):
    boxes, mask = DEGENERATE[name]
    outputs = jnp.float32(examples(images=1)[0])

    truth = jnp.float32([boxes]), jnp.full((1, 1), 0 if mask[0] else 1000), jnp.asarray([mask])
    slope, (parts, counts) = gradient(outputs, *truth, jnp.float32(0.01), True)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves((slope, parts)))
    assert counts["objects"].item() == (name == "as thin as float32 goes")
    if not counts["objects"]:
        nothing = jnp.zeros((1, 1, 4)), jnp.zeros((1, 1), jnp.int32), jnp.zeros((1, 1), bool)
        same = gradient(outputs, *nothing, jnp.float32(0.01), True)
        jax.tree.map(np.testing.assert_array_equal, (slope, parts, counts), (same[0], *same[1]))


def test_masked_objects_change_nothing():
    outputs, boxes, labels, mask = to_jax(*examples())
    expected, _ = region.losses(outputs, boxes, labels, mask, ANCHORS, STRIDE)
    boxes, labels = jnp.where(mask[..., None], boxes, jnp.nan), jnp.where(mask, labels, 1000)
    found, _ = region.losses(outputs, boxes, labels, mask, ANCHORS, STRIDE)  # not compiled: XLA may take 0 * NaN for 0
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_objects_are_clipped_to_the_image():
    outputs = jnp.float32(examples(images=1)[0])
    labels, mask = jnp.ones((1, 1), jnp.int32), jnp.ones((1, 1), bool)
    height, width = STRIDE * GRID[0], STRIDE * GRID[1]
    whole = gradient(outputs, jnp.float32([[[-7, 10, 9, height + 90]]]), labels, mask, jnp.float32(0), True)
    cut = gradient(outputs, jnp.float32([[[0, 10, 9, height]]]), labels, mask, jnp.float32(0), True)
    jax.tree.map(np.testing.assert_array_equal, whole, cut)
    inside = gradient(outputs, jnp.float32([[[width - 9, 10, width, height]]]), labels, mask, jnp.float32(0), True)
    assert (inside[0] != cut[0]).any()


def test_weights_scale_their_parts():
    given = to_jax(*examples())
    parts, _ = region.losses(*given, ANCHORS, STRIDE)
    weights = region.RegionLoss(object_weight=10.0, no_object_weight=3.0, class_weight=4.0, coordinate_weight=5.0)
    heavier, _ = region.losses(*given, ANCHORS, STRIDE, weights)
    factors = dict(object=2, no_object=3, **{"class": 4}, coordinates=5, prior=1)
    for name, factor in factors.items():
        np.testing.assert_allclose(heavier[name], factor * parts[name], rtol=1e-6)
    never, _ = region.losses(*given, ANCHORS, STRIDE, region.RegionLoss(ignore_iou=1.0))
    assert (never["no_object"] > parts["no_object"]).all()  # predictions that are nearly right are not left alone


def test_ranks_pairs_of_box_and_class():
    generator = np.random.default_rng(0)
    boxes, scores = generator.normal(size=(2, *GRID, 3, 4)), generator.uniform(size=(2, *GRID, 3, CLASSES))
    found = region.rank(jnp.float32(boxes), jnp.float32(scores), count=7)
    for image in range(2):
        order = np.argsort(-scores[image].ravel())[:7]
        place = np.unravel_index(order, scores.shape[1:])
        np.testing.assert_allclose(found[0][image], boxes[image][place[:-1]], rtol=1e-6)
        np.testing.assert_allclose(found[1][image], scores[image][place], rtol=1e-6)
        assert found[2][image].tolist() == place[-1].tolist()
