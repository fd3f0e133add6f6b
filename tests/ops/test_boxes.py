"""Boxes against counted pixels, against NumPy to the last bit, by hand in float64, and against their own inverses."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.ops import boxes


def random_boxes(seed, shape, span=60.0):
    """Of all sizes, some at negative coordinates, some empty."""
    random = np.random.default_rng(seed)
    near = random.uniform(-span, span, (*shape, 2))
    size = random.uniform(0, span, (*shape, 2)) * (random.uniform(size=(*shape, 2)) > 0.05)
    return np.concatenate([near, near + size], -1).astype(np.float32)


def painted(box, size=24):
    y, x = np.mgrid[:size, :size]
    return (x >= box[0]) & (x < box[2]) & (y >= box[1]) & (y < box[3])


def test_areas_and_overlaps_are_counts_of_pixels():
    random = np.random.default_rng(0)
    corners = np.sort(random.integers(0, 24, (30, 2, 2)), axis=1).reshape(30, 4)
    masks = np.stack([painted(box) for box in corners])
    a = jnp.asarray(corners, jnp.float32)
    np.testing.assert_array_equal(boxes.area(a), masks.sum((1, 2)))
    both = (masks[:, None] & masks).sum((2, 3))
    either = (masks[:, None] | masks).sum((2, 3))
    expected = np.where(either > 0, both / np.maximum(either, 1), 0).astype(np.float32)
    np.testing.assert_array_equal(boxes.iou(a, a), expected)
    hulls = [[painted(np.r_[np.minimum(p, q)[:2], np.maximum(p, q)[2:]]).sum() for q in corners] for p in corners]
    # At least one side of a pair is not empty; the smallest box around two empty ones is another question.
    solid = (masks.any((1, 2))[:, None] | masks.any((1, 2))) & (np.array(hulls) > 0)
    waste = (np.array(hulls) - either) / np.maximum(hulls, 1)
    np.testing.assert_allclose(  # float32: a quotient and a difference of numbers up to 1
        np.asarray(boxes.generalised_iou(a, a))[solid], (expected - waste)[solid], atol=2e-7
    )


def test_iou_has_the_bits_of_numpy_compiled_or_not():
    """A fused multiply-add in the union moves one IoU in eight by a bit, and so across thresholds that it equals."""
    a, b = random_boxes(0, (300,)), random_boxes(1, (200,))
    zero = np.float32(0)

    def area(box):
        return np.maximum(box[..., 2] - box[..., 0], zero) * np.maximum(box[..., 3] - box[..., 1], zero)

    p, q = a[:, None], b[None]
    both = np.maximum(np.minimum(p[..., 2:], q[..., 2:]) - np.maximum(p[..., :2], q[..., :2]), zero).prod(-1)
    either = area(p) + area(q) - both
    expected = np.divide(both, either, out=np.zeros_like(both), where=either > 0)
    assert expected.dtype == np.float32 and (expected > 0.3).sum() > 100
    np.testing.assert_array_equal(boxes.iou(jnp.asarray(a), jnp.asarray(b)), expected)
    np.testing.assert_array_equal(jax.jit(boxes.iou)(a, b), expected)


def test_overlap_of_odd_boxes():
    odd = jnp.array([[0, 0, 4, 4], [2, 2, 2, 9], [3, 3, 1, 1], [-9, -9, -5, -5], [-7, -9, -3, -5]], jnp.float32)
    overlaps = np.asarray(boxes.iou(odd, odd))
    assert not overlaps[1:3].any() and not overlaps[:, 1:3].any()  # empty, inverted: not even with themselves
    assert overlaps[0, 0] == overlaps[3, 3] == 1 and overlaps[3, 4] == np.float32(8 / 24)
    assert boxes.iou(odd[:0], odd).shape == (0, 5)
    batched = boxes.iou(jnp.stack([odd, odd + 1]), jnp.stack([odd, odd + 1]))
    np.testing.assert_array_equal(batched, [overlaps, overlaps])


def test_generalised_iou_tells_far_from_near_and_has_gradients_everywhere():
    a = jnp.array([[0.0, 0, 2, 2]])
    b = jnp.array([[0.0, 0, 2, 2], [2, 0, 4, 2], [6, 0, 8, 2]])
    np.testing.assert_allclose(boxes.generalised_iou(a, b)[0], [1, 0, -0.5])
    gradient = jax.jit(jax.grad(lambda box: boxes.generalised_iou(box, b)[0, 2]))(a)[0]
    assert gradient[2] > 0  # growing towards a box that it does not touch
    everywhere = jnp.array([[0.0, 0, 2, 2], [1, 1, 1, 1], [0, 0, 0, 0], [3, 3, 2, 2]])
    for measure in (boxes.iou, boxes.generalised_iou):
        assert np.isfinite(jax.jit(jax.grad(lambda x, f=measure: f(x, x).sum()))(everywhere)).all()


def test_encode_follows_the_paper_and_decode_inverts_it():
    weights = (10.0, 10.0, 5.0, 5.0)
    anchors = jnp.asarray(random_boxes(2, (50,))) + jnp.array([0.0, 0, 3, 3])
    truth = jnp.asarray(random_boxes(3, (50,))) + jnp.array([0.0, 0, 2, 2])
    deltas = boxes.encode(truth, anchors, weights)
    box, anchor = np.asarray(truth[0], np.float64), np.asarray(anchors[0], np.float64)
    width, height = box[2] - box[0], box[3] - box[1]
    wide, high = anchor[2] - anchor[0], anchor[3] - anchor[1]
    by_hand = [
        10 * ((box[0] + box[2]) / 2 - (anchor[0] + anchor[2]) / 2) / wide,
        10 * ((box[1] + box[3]) / 2 - (anchor[1] + anchor[3]) / 2) / high,
        5 * np.log(width / wide),
        5 * np.log(height / high),
    ]
    np.testing.assert_allclose(deltas[0], by_hand, rtol=1e-5)  # float32
    np.testing.assert_allclose(boxes.decode(deltas, anchors, weights), truth, atol=1e-3)  # 60 px through exp(log)
    np.testing.assert_allclose(boxes.decode(jnp.zeros((50, 4)), anchors), anchors, atol=1e-4)


def test_wild_predictions_and_degenerate_boxes_stay_finite():
    anchor = jnp.array([[0.0, 0, 16, 16]])
    wild = boxes.decode(jnp.array([[0.0, 0, 500, -500]]), anchor)
    np.testing.assert_allclose(wild[0, 2] - wild[0, 0], 1000, rtol=1e-6)
    assert wild[0, 3] == wild[0, 1]
    flat = jnp.array([[3.0, 3, 3, 9]])
    assert np.isfinite(boxes.encode(flat, anchor)).all()
    assert np.isfinite(jax.grad(lambda box: boxes.encode(box, anchor).sum())(flat)).all()


def test_clip_flip_and_centres():
    a = jnp.asarray(random_boxes(4, (2, 20)))
    np.testing.assert_allclose(boxes.from_centre(boxes.to_centre(a)), a, atol=2e-5)  # float32 at 120
    np.testing.assert_array_equal(boxes.to_centre(jnp.array([0.0, 2, 4, 10])), [2, 6, 4, 8])
    clipped = np.asarray(boxes.clip(a, 30, 40))
    np.testing.assert_array_equal(clipped, np.clip(a, 0, [40, 30, 40, 30]))
    image = painted([3, 5, 10, 7], 20)
    np.testing.assert_array_equal(painted(np.asarray(boxes.flip(jnp.array([3.0, 5, 10, 7]), 20)), 20), image[:, ::-1])
    np.testing.assert_allclose(boxes.flip(boxes.flip(a, 33.0), 33.0), a, atol=2e-5)


def test_objects_are_what_is_visible_of_them():
    whole, half, touching = [2, 3, 9, 8], [-5, 25, 5, 35], [40, 0, 50, 30]
    flat, inside_out, rubbish = [4, 4, 4, 9], [9, 8, 2, 3], [np.nan, 0, np.inf, 5]
    given = jnp.array([[whole, half, touching, flat], [inside_out, rubbish, whole, rubbish]], jnp.float32)
    mask = jnp.array([[True, True, True, True], [True, True, False, False]])
    seen, present = boxes.visible(given, mask, 30, 40)
    np.testing.assert_array_equal(present, [[True, True, False, False], [False] * 4])
    np.testing.assert_array_equal(seen[0, :2], [whole, [0, 25, 5, 30]])
    assert not seen[0, 2:].any() and not seen[1].any()


@pytest.mark.parametrize("function", [boxes.area, boxes.to_centre, lambda b: boxes.iou(b, b)])
def test_all_of_it_maps_over_batches(function):
    a = jnp.asarray(random_boxes(5, (3, 7)))
    np.testing.assert_allclose(jax.vmap(function)(a), function(a), rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_boxes_in_half_precision_are_measured_in_float32(dtype):
    corners = np.sort(np.random.default_rng(6).uniform(0, 600, (40, 2, 2)), axis=1).reshape(40, 4)
    half = jnp.asarray(np.concatenate([corners, [[0, 0, 400, 400]]]), dtype)  # areas over 65,504, where float16 ends
    exact = half.astype(jnp.float32)
    weights = (10.0, 10.0, 5.0, 5.0)
    anchors = exact[:10] + jnp.array([0.0, 0, 8, 8])
    for function in (
        boxes.area,
        boxes.to_centre,
        boxes.from_centre,
        lambda b: boxes.iou(b, b),
        lambda b: boxes.generalised_iou(b, b),
        lambda b: boxes.encode(b[:10], anchors.astype(b.dtype), weights),
        lambda b: boxes.decode(b[:10] / 600, b[:10], weights),
    ):
        found = function(half)
        assert found.dtype == jnp.float32 and jnp.isfinite(found).all()
    for function in (boxes.area, boxes.to_centre, lambda b: boxes.iou(b, b), lambda b: boxes.generalised_iou(b, b)):
        np.testing.assert_array_equal(function(half), function(exact))
    kept = boxes.clip(half, 300, 200)
    assert kept.dtype == dtype and boxes.area(kept).max() == 300 * 200
