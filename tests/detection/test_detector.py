"""What detectors share: detections selected as greedy loops select them, and drawn."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.config import find_system
from cvjax.detection.detector import Detection, draw, select
from cvjax.signature import arguments_of
from cvjax.upgrade import upgrade_config


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


def test_across_classes_all_boxes_suppress_each_other():
    boxes, scores, labels = candidates(3)
    thresholds = (0.25, 0.3)
    settings = Detection(*thresholds, max_detections=50, across_classes=True)
    found = jax.device_get(jax.jit(select, static_argnums=3)(boxes, scores, labels, settings))
    for image in range(4):
        chosen = greedy(boxes[image], scores[image], np.zeros_like(labels[image]), *thresholds, 50)
        assert len(chosen) < len(greedy(boxes[image], scores[image], labels[image], *thresholds, 50))
        for name, rows in (("boxes", boxes), ("scores", scores), ("labels", labels)):
            np.testing.assert_array_equal(found[name][image][found["detected"][image]], rows[image][chosen])


def test_selects_as_greedy_loops_do():
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


def test_scores_equal_to_the_threshold_are_dropped():
    boxes = jnp.tile(jnp.array([0.0, 0, 4, 4]), (1, 2, 1)) + jnp.array([[[0.0], [9.0]]])
    found = select(boxes, jnp.array([[0.5, 0.75]]), jnp.zeros((1, 2), jnp.int32), Detection(0.5, 0.5, 3))
    assert found["detected"].tolist() == [[True, False, False]] and found["scores"][0, 0] == 0.75


def test_draws_truth_left_and_confident_detections_right():
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


@pytest.mark.parametrize("system", ["sliding_window", "yolo", "yolov2", "yolo9000", "retinanet"])
def test_runs_from_before_the_groups_keep_their_settings(system):
    old = {"score_threshold": 0.1, "iou_threshold": 0.2, "max_detections": 3, "flip_test": True}
    weights = {"object_weight": 2.0, "ignore_iou": 0.5, "rescore": False} if system in ("yolov2", "yolo9000") else {}
    recipe = upgrade_config({"system": f"detection.{system}", "recipe": {**old, **weights, "ema": 0.5}})["recipe"]
    assert recipe == {"detection": old, "ema": 0.5} | ({"loss": weights} if weights else {})
    arguments = arguments_of(find_system(f"detection.{system}").recipe)
    assert set(recipe) <= set(arguments) and Detection(**recipe["detection"]).flip_test


def test_draws_masks_and_joints_of_both():
    instances = np.zeros((1, 64, 80), np.int32)
    instances[0, 10:30, 10:30] = 2  # of the second row; the first is padding
    batch = {"image": np.zeros((1, 64, 80, 3), np.float32), "boxes": np.float32([[[0, 0, 1, 1], [10, 10, 30, 30]]])}
    batch |= {"labels": np.zeros((1, 2), int), "mask": np.array([[False, True]]), "instances": instances}
    batch |= {"keypoints": np.full((1, 2, 1, 2), 50.5, np.float32), "visibility": np.full((1, 2, 1), 2)}
    found = {"boxes": batch["boxes"] + 20, "labels": batch["labels"], "scores": np.ones((1, 2), np.float32)}
    found |= {"detected": batch["mask"], "masks": np.ones((1, 2, 28, 28), np.float32)}
    found |= {"keypoints": np.full((1, 2, 1, 3), 5.5, np.float32)}
    left, right = np.split(draw(batch, found, ["a"])[0], 2, axis=1)
    scale = 4
    for picture, inside, outside, joint in ((left, 20, 40, 50), (right, 40, 20, 5)):
        lit = [picture[place * scale + 2, place * scale + 2].max() > 0.2 for place in (inside, outside, joint)]
        assert lit == [True, False, True]
