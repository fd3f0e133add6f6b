"""What detectors share: detections selected as greedy loops select them, and drawn."""

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.detection.detector import Detection, draw, select


def overlap_of(a, b):
    width, height = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    shared = width * height
    both = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - shared
    return shared / both if both > 0 else 0.0


def greedy(boxes, scores, labels, score_threshold, iou_threshold, count):
    """Indices of an image's detections."""
    chosen = []
    for i in np.argsort(-scores, kind="stable"):
        rivals = (j for j in chosen if labels[j] == labels[i])
        if scores[i] > score_threshold and all(overlap_of(boxes[i], boxes[j]) <= iou_threshold for j in rivals):
            chosen.append(i)
    return chosen[:count]


def candidates(seed, images=4, count=60, classes=3):
    rng = np.random.default_rng(seed)
    near = rng.uniform(0, 30, (images, count, 2))
    boxes = np.concatenate([near, near + rng.uniform(8, 30, near.shape)], axis=-1).astype(np.float32)
    scores = rng.permuted(np.tile(np.linspace(0, 1, count, dtype=np.float32), (images, 1)), axis=1)
    return boxes, scores, rng.integers(0, classes, (images, count)).astype(np.int32)


def test_across_classes_all_boxes_are_rivals():
    boxes, scores, labels = candidates(3)
    thresholds = (0.25, 0.3)
    settings = Detection(*thresholds, max_detections=50, across_classes=True)
    found = jax.device_get(jax.jit(select, static_argnums=3)(boxes, scores, labels, settings))
    for image in range(4):
        chosen = greedy(boxes[image], scores[image], np.zeros_like(labels[image]), *thresholds, 50)
        assert len(chosen) < len(greedy(boxes[image], scores[image], labels[image], *thresholds, 50))
        for name, rows in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            np.testing.assert_array_equal(found[name][image][found["detected"][image]], rows[image][chosen])


def test_detections_are_the_best_that_do_not_overlap_another_of_their_class():
    boxes, scores, labels = candidates(0)
    scores[3] = 0.0  # an image of nothing
    thresholds, lengths = (0.25, 0.3), set()
    for count in (8, 50):
        settings = Detection(*thresholds, max_detections=count)
        found = jax.device_get(jax.jit(select, static_argnums=3)(boxes, scores, labels, settings))
        for image in range(4):
            chosen = greedy(boxes[image], scores[image], labels[image], *thresholds, count)
            lengths.add(len(chosen))
            assert found["detected"][image].tolist() == [True] * len(chosen) + [False] * (count - len(chosen))
            for name, rows in (("boxes", boxes), ("scores", scores), ("labels", labels)):
                np.testing.assert_array_equal(found[name][image, : len(chosen)], rows[image][chosen])
                assert not found[name][image, len(chosen) :].any()
    assert {0, 8} < lengths and max(lengths) < 50


def test_what_scores_just_the_threshold_is_dropped():
    boxes = jnp.tile(jnp.array([0.0, 0, 4, 4]), (1, 2, 1)) + jnp.array([[[0.0], [9.0]]])
    found = select(boxes, jnp.array([[0.5, 0.75]]), jnp.zeros((1, 2), jnp.int32), Detection(0.5, 0.5, 3))
    assert found["detected"].tolist() == [[True, False, False]] and found["scores"][0, 0] == 0.75


def test_truth_is_drawn_on_the_left_and_what_is_sure_on_the_right():
    boxes = np.array([[[8, 8, 24, 24], [0, 0, 0, 0]]], np.float32)
    batch = {"image": np.zeros((1, 32, 40, 3), np.float32), "boxes": boxes, "labels": np.zeros((1, 2), np.int32)}
    batch |= {"mask": np.array([[True, False]])}
    found = {"boxes": boxes, "labels": batch["labels"], "detected": batch["mask"]}
    drawn = []
    for score in (0.9, 0.1):
        scores = np.array([[score, 0]], np.float32)
        drawn.append(draw(batch, found | {"scores": scores}, ["a"], least_score=0.3)[0])
        assert drawn[-1].shape == (256, 2 * 320, 3)
    left, right = ([image[:, half] for image in drawn] for half in (slice(320), slice(320, None)))
    np.testing.assert_array_equal(*left)
    assert left[0].any() and right[0].any() and not right[1].any()
