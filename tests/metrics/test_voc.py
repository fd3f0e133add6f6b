"""VOC's figures against the development kit's way, written independently: one class after another, all of its
detections in one list by falling score, inclusive pixel coordinates and their + 1, loops."""

import numpy as np
import pytest
from detection_scenes import in_batches, scenes

from cvjax.metrics import detection, plots, voc

NAMES = ("a", "b", "c")


def kit(batch, outputs, label, year, threshold=0.5):
    """Average precision of a class, -1 without objects."""
    truth, positives = {}, 0
    for i, present in enumerate(batch["mask"]):
        rows = [j for j in np.flatnonzero(present) if batch["labels"][i, j] == label]
        out = [bool(batch["difficult"][i, j] or batch["crowd"][i, j]) for j in rows]
        inclusive = [batch["boxes"][i, j].astype(float) - [0, 0, 1, 1] for j in rows]
        truth[i] = (inclusive, out, [False] * len(rows))
        positives += out.count(False)
    if not positives:
        return -1.0
    listed = []
    for i, detected in enumerate(outputs["detected"]):
        for j in np.flatnonzero(detected):
            if outputs["labels"][i, j] == label:
                listed.append((float(outputs["scores"][i, j]), i, outputs["boxes"][i, j].astype(float) - [0, 0, 1, 1]))
    listed.sort(key=lambda row: -row[0])  # stable
    hits, falses = [], []
    for _, image, guess in listed:
        boxes, out, taken = truth[image]
        best, which = -np.inf, None
        for j, box in enumerate(boxes):
            width = min(guess[2], box[2]) - max(guess[0], box[0]) + 1
            height = min(guess[3], box[3]) - max(guess[1], box[1]) + 1
            if width > 0 and height > 0:
                first = (guess[2] - guess[0] + 1) * (guess[3] - guess[1] + 1)
                second = (box[2] - box[0] + 1) * (box[3] - box[1] + 1)
                overlap = width * height / (first + second - width * height)
                if overlap > best:
                    best, which = overlap, j
        if best > threshold and out[which]:
            hit = false = 0
        elif best > threshold and not taken[which]:
            taken[which], hit, false = True, 1, 0
        else:
            hit, false = 0, 1
        hits.append(hit)
        falses.append(false)
    hits, falses = np.cumsum(hits), np.cumsum(falses)
    recall, precision = hits / positives, hits / np.maximum(hits + falses, np.finfo(float).eps)
    if year == 2007:
        average = 0.0
        for t in np.arange(0.0, 1.1, 0.1):
            average += max((p for r, p in zip(recall, precision, strict=True) if r >= t), default=0.0) / 11
        return average
    recall, precision = [0.0, *recall, 1.0], [0.0, *precision, 0.0]
    for k in range(len(precision) - 2, -1, -1):
        precision[k] = max(precision[k], precision[k + 1])
    return sum((recall[k + 1] - recall[k]) * precision[k + 1] for k in range(len(recall) - 1))


@pytest.mark.parametrize("grid", [False, True])
def test_equals_the_kit(grid):
    worth = []
    for seed in range(8):
        batch, outputs = scenes(seed, grid=grid)
        if seed == 7:
            batch["difficult"][batch["labels"] == 1] = True
        _, per_class = detection.measure(in_batches(batch, outputs, 7), NAMES)
        for label, name in enumerate(NAMES):
            for column, year in [("voc07", 2007), ("voc", 2010)]:
                expected = kit(batch, outputs, label, year)
                # Up to eleven additions of float64, and as many of areas as there are detections.
                assert per_class[name][column] == pytest.approx(expected, abs=1e-12)
                worth.append(expected)
    assert -1 in worth and min(w for w in worth if w >= 0) > 0.05 and max(worth) < 0.95


def one_class(found, objects, difficult=()):
    """A picture of boxes in a row, and detections of those whose numbers are given."""
    boxes = np.array([[20.0 * i, 0, 20 * i + 10, 10] for i in range(objects)], np.float32)
    batch = {
        "boxes": boxes[None],
        "labels": np.zeros((1, objects), np.int32),
        "mask": np.ones((1, objects), bool),
        "difficult": np.isin(np.arange(objects), difficult)[None],
    }
    outputs = {
        "boxes": boxes[list(found)][None],
        "labels": np.zeros((1, len(found)), np.int32),
        "scores": np.linspace(1, 0.1, len(found), dtype=np.float32)[None],
        "detected": np.ones((1, len(found)), bool),
    }
    return detection.measure([(batch, outputs)], ["thing"])[1]["thing"]


def test_the_kits_tenths_are_not_quite_tenths():
    found = one_class(range(3), 10)
    assert found["voc07"] == pytest.approx(3 / 11)  # and not 4 / 11: its fourth recall is .30000000000000004
    assert found["voc"] == pytest.approx(0.3) and found["objects"] == 10
    assert one_class(range(10), 10)["voc07"] == 1
    assert one_class([], 10)["voc07"] == 0


def test_difficult_objects_count_neither_way():
    assert one_class([0, 1, 2, 2], 4, difficult=[2, 3])["voc"] == 1  # two detections of a difficult one, one unfound
    assert one_class([0, 0, 1], 2)["voc"] == pytest.approx(0.5 + 0.5 * 2 / 3)  # found twice: the second is false


def test_the_nearest_object_is_asked_even_if_it_is_taken():
    """A second detection between two objects is false, though the farther one is free and overlaps it enough."""
    boxes = np.array([[[0, 0, 10, 10], [2, 0, 12, 10]]], np.float32)
    guesses = np.array([[[0, 0, 10, 10], [0.5, 0, 10.5, 10]]], np.float32)
    batch = {"boxes": boxes, "labels": np.zeros((1, 2), np.int32), "mask": np.ones((1, 2), bool)}
    outputs = {"boxes": guesses, "labels": np.zeros((1, 2), np.int32), "scores": np.array([[0.9, 0.8]], np.float32)}
    outputs["detected"] = np.ones((1, 2), bool)
    found = detection.measure([(batch, outputs)], ["thing"])[1]["thing"]
    assert found["voc"] == 0.5 and found["ap50"] > 0.99  # COCO gives it the free one


@pytest.mark.parametrize("difficult", [False, True])
def test_the_nearest_object_is_asked_even_if_it_is_difficult(difficult):
    """A detection of a difficult object counts neither way, though a plain one is free and overlaps it enough."""
    boxes = np.array([[[0, 0, 10, 10], [2, 0, 12, 10]]], np.float32)
    batch = {"boxes": boxes, "labels": np.zeros((1, 2), np.int32), "mask": np.ones((1, 2), bool)}
    batch["difficult"] = np.array([[difficult, False]])
    guesses = np.array([[[0.5, 0, 10.5, 10], [30, 0, 40, 10], [2, 0, 12, 10]]], np.float32)
    outputs = {"boxes": guesses, "labels": np.zeros((1, 3), np.int32), "detected": np.ones((1, 3), bool)}
    outputs["scores"] = np.array([[0.9, 0.8, 0.7]], np.float32)
    recall, precision = detection.precision_recall([(batch, outputs)], ["thing"])["thing"]
    np.testing.assert_allclose(recall, [0, 1] if difficult else [1 / 2, 1 / 2, 1])
    np.testing.assert_allclose(precision, [0, 1 / 2] if difficult else [1, 1 / 2, 2 / 3])


def test_the_curve_of_a_class_that_was_never_detected_is_drawn():
    batch, outputs = scenes(0)
    outputs["detected"] &= outputs["labels"] != 1
    curves = detection.precision_recall(in_batches(batch, outputs, 7), NAMES)
    assert set(curves) == set(NAMES) and len(curves["b"][0]) == 0
    drawn, others = plots.draw_precision_recall(curves), plots.draw_precision_recall({"a": curves["a"]})
    assert (drawn != others).any()
    one, flat = np.array([0.5]), np.array([1.0])  # from recall 0 on the precision is the first
    shown = [plots.draw_precision_recall({"a": curve}) for curve in ((one, flat), (np.append(0, one), np.ones(2)))]
    np.testing.assert_array_equal(*shown)


def test_an_overlap_of_exactly_the_threshold_is_no_match():
    half = np.array([[[0, 0, 10, 5]]], np.float32)
    batch = {"boxes": np.array([[[0, 0, 10, 10]]], np.float32), "labels": np.zeros((1, 1), np.int32)}
    batch["mask"] = np.ones((1, 1), bool)
    outputs = {"boxes": half, "labels": np.zeros((1, 1), np.int32), "scores": np.ones((1, 1), np.float32)}
    outputs["detected"] = np.ones((1, 1), bool)
    assert detection.measure([(batch, outputs)], ["thing"])[1]["thing"]["voc"] == 0
    curves = detection.precision_recall([(batch, outputs)], ["thing"], iou_threshold=0.49)
    assert [part.tolist() for part in curves["thing"]] == [[1.0], [1.0]]


def test_precision_and_recall_along_a_curve():
    scores, found = np.array([0.1, 0.9, 0.5, 0.9]), np.array([True, True, False, False])
    recall, precision = voc.curve(scores, found, 4)
    np.testing.assert_allclose(recall, [0.25, 0.25, 0.25, 0.5])
    np.testing.assert_allclose(precision, [1, 1 / 2, 1 / 3, 1 / 2])
    assert voc.average_precision(recall, precision, "area") == pytest.approx(0.25 + 0.25 * 0.5)
