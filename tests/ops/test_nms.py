"""NMS against greedy NMS as a loop in NumPy, with the same IoU in float32, so that nothing needs a tolerance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from cvjax.errors import UserError
from cvjax.ops import nms as module
from cvjax.ops.nms import batched_nms, nms

THRESHOLDS = [0.0, 0.3, 0.5, 0.7, 1.0]


def overlaps(box, others):
    """IoU of one box with others in float32, 0 where the union is empty."""
    zero = np.float32(0)
    size = np.maximum(np.minimum(box[2:], others[:, 2:]) - np.maximum(box[:2], others[:, :2]), zero)
    both = size[:, 0] * size[:, 1]
    spans = np.maximum(others[:, 2:] - others[:, :2], zero)
    span = np.maximum(box[2:] - box[:2], zero)
    either = span[0] * span[1] + spans[:, 0] * spans[:, 1] - both
    return np.divide(both, either, out=np.zeros_like(both), where=either > 0)


def greedy(boxes, scores, threshold, max_outputs, labels=None):
    boxes, scores = np.asarray(boxes), np.asarray(scores)
    labels = np.zeros(len(boxes)) if labels is None else np.asarray(labels)
    left, chosen = [i for i in range(len(boxes)) if scores[i] > -np.inf], []
    while left and len(chosen) < max_outputs:
        best = max(left, key=lambda i: (scores[i], -i))
        chosen.append(best)
        left.remove(best)
        if left:
            overlap = overlaps(boxes[best], boxes[left])
            left = [i for i, o in zip(left, overlap, strict=True) if labels[i] != labels[best] or not o > threshold]
    return chosen


def crowd(seed, count, span=150.0, whole=False):
    """Boxes of all sizes around zero: some empty, some twice, many of equal score; on a grid, IoUs equal thresholds."""
    random = np.random.default_rng(seed)
    centres, sizes = random.uniform(-span, span, (count, 2)), random.uniform(4, 90, (count, 2))
    sizes[random.uniform(size=count) < 0.03, 0] = 0
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    boxes = np.round(boxes / 8) * 8 if whole else boxes
    twice = random.uniform(size=count) < 0.1
    boxes[twice] = boxes[random.integers(0, count, twice.sum())]
    scores = np.round(random.uniform(size=count), 2)
    scores[random.uniform(size=count) < 0.05] = -np.inf
    return jnp.asarray(boxes, jnp.float32), jnp.asarray(scores, jnp.float32)


def chosen(result):
    indices, valid = (np.asarray(part) for part in result)
    count = valid.sum()
    assert valid[:count].all() and not indices[count:].any()  # what is valid comes first, the rest is 0
    return indices[:count].tolist()


run = jax.jit(nms, static_argnames="max_outputs")
run_batched = jax.jit(batched_nms, static_argnames="max_outputs")


@pytest.mark.parametrize("threshold", THRESHOLDS)
@pytest.mark.parametrize("whole", [False, True])
def test_is_greedy_at_every_threshold(threshold, whole):
    for seed in range(6):
        boxes, scores = crowd(seed, 300, whole=whole)
        for limit in (30, 400):
            found = chosen(run(boxes, scores, iou_threshold=threshold, max_outputs=limit))
            assert found == greedy(boxes, scores, np.float32(threshold), limit)


def test_is_greedy_at_thresholds_that_occur():
    """What overlaps by exactly the threshold stays: at every IoU of a hundred pairs of these very boxes."""
    boxes, scores = crowd(7, 300, span=60)
    matrix = np.stack([overlaps(np.asarray(box), np.asarray(boxes)) for box in boxes])
    values = matrix[(matrix > 0.05) & (matrix < 1)]
    for threshold in np.random.default_rng(0).choice(values, 100):
        found = chosen(run(boxes, scores, iou_threshold=threshold, max_outputs=400))
        assert found == greedy(boxes, scores, threshold, 400)


def test_follows_chains_across_tiles():
    """Each box suppresses only the next one, so that every second stays: hundreds of decisions, each on the last."""
    count = 4 * module.TILE + 3
    x = 4.0 * jnp.arange(count) - 500
    boxes = jnp.stack([x, jnp.full(count, -9.0), x + 10, jnp.zeros(count)], -1)
    found = run(boxes, jnp.linspace(1, 0, count), iou_threshold=0.3, max_outputs=count)
    assert chosen(found) == list(range(0, count, 2))


def test_ties_duplicates_and_empty_boxes():
    box, far, flat = [-8.0, -8, -2, -2], [20.0, 20, 30, 30], [5.0, 5, 5, 9]
    boxes = jnp.array([far, box, box, flat, flat, box])
    scores = jnp.array([0.5, 0.9, 0.9, 0.7, 0.7, 0.9])
    assert chosen(run(boxes, scores, iou_threshold=0.5, max_outputs=6)) == [1, 3, 4, 0]
    assert chosen(run(boxes, scores, iou_threshold=1, max_outputs=6)) == [1, 2, 5, 3, 4, 0]
    assert chosen(run(boxes, scores, iou_threshold=0, max_outputs=6)) == [1, 3, 4, 0]


def test_padding_is_never_chosen_and_suppresses_nothing():
    boxes, scores = crowd(3, 300)
    real = np.flatnonzero(np.asarray(scores) > -np.inf)
    alone = np.array(greedy(boxes[real], scores[real], np.float32(0.4), 400))
    for padding in (-jnp.inf, jnp.nan):
        padded = jnp.where(scores > -jnp.inf, scores, padding)
        assert chosen(run(boxes, padded, iou_threshold=0.4, max_outputs=400)) == real[alone].tolist()
    nothing = run(boxes, jnp.full(300, -jnp.inf), iou_threshold=0.4, max_outputs=30)
    assert chosen(nothing) == [] == chosen(run(boxes[:0], scores[:0], iou_threshold=0.4, max_outputs=5))
    assert nothing[0].shape == (30,)


def test_classes_do_not_suppress_each_other_however_far_from_zero():
    """Boxes moved apart by class, the usual trick, lose the bits that tell these overlaps from the threshold."""
    boxes, scores = crowd(5, 300, whole=True)
    labels = jnp.asarray(np.random.default_rng(5).integers(0, 80, 300) % 7 * 1_000_003, jnp.int32)
    mask = jnp.asarray(np.random.default_rng(6).uniform(size=300) < 0.8)
    for threshold in THRESHOLDS:
        found = chosen(run_batched(boxes, scores, labels, iou_threshold=threshold, max_outputs=99, mask=mask))
        assert found == greedy(boxes, jnp.where(mask, scores, -jnp.inf), np.float32(threshold), 99, labels)
    one_class = run_batched(boxes, scores, 0 * labels, iou_threshold=0.3, max_outputs=99, mask=mask | True)
    assert chosen(one_class) == greedy(boxes, scores, np.float32(0.3), 99)


def test_maps_over_images_and_spreads_over_devices():
    boxes, scores = (jnp.stack(part) for part in zip(*map(crowd, range(8), [300] * 8, range(40, 360, 40)), strict=True))
    function = jax.jit(jax.vmap(lambda b, s: nms(b, s, iou_threshold=0.5, max_outputs=64)))
    together = function(boxes, scores)
    for i in range(8):
        assert chosen((together[0][i], together[1][i])) == greedy(boxes[i], scores[i], np.float32(0.5), 64)
    sharding = NamedSharding(Mesh(jax.devices(), "data"), PartitionSpec("data"))
    spread = function(*jax.device_put((boxes, scores), sharding))
    assert len(spread[0].sharding.device_set) == len(jax.devices()) == 8
    for a, b in zip(together, spread, strict=True):
        np.testing.assert_array_equal(a, b)


def test_gradients_flow_through_chosen_boxes_only():
    boxes, _ = crowd(1, 40)

    def loss(boxes):
        indices, valid = nms(boxes, boxes[:, 0], iou_threshold=0.5, max_outputs=10)
        return jnp.where(valid[:, None], boxes[indices], 0).sum()

    gradient = np.asarray(jax.jit(jax.grad(loss))(boxes))
    expected = greedy(boxes, boxes[:, 0], np.float32(0.5), 10)
    assert len(expected) == 10 and sorted(expected) == np.flatnonzero(gradient[:, 0]).tolist()


def test_refuses_thresholds_outside_0_to_1():
    with pytest.raises(UserError, match=r"iou_threshold=50 is not in \[0, 1\]"):
        nms(*crowd(0, 4), iou_threshold=50, max_outputs=2)


@pytest.mark.parametrize("dtype", [jnp.float16, jnp.bfloat16])
def test_boxes_in_half_precision_suppress_as_in_float32(dtype):
    random = np.random.default_rng(7)
    near = random.uniform(0, 300, (60, 2))
    boxes = jnp.asarray(np.concatenate([near, near + random.uniform(100, 400, (60, 2))], 1), dtype)
    scores = jnp.asarray(random.permutation(60) / 60, dtype)
    chosen, valid = nms(boxes, scores, iou_threshold=0.5, max_outputs=60)
    expected = greedy(boxes.astype(jnp.float32), scores.astype(jnp.float32), 0.5, 60)
    assert chosen[valid].tolist() == expected and 1 < len(expected) < 40
