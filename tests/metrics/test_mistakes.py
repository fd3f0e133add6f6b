"""Mistakes by kind: one of each by hand, then random scenes against the definitions in loops."""

import numpy as np
import pytest
from detection_scenes import in_batches, scenes

from cvjax.metrics import mistakes

NAMES = ("a", "b", "c")


def iou(a, b):
    size = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0)
    both = size[0] * size[1]
    return (
        both / (np.maximum(a[2:] - a[:2], 0).prod() + np.maximum(b[2:] - b[:2], 0).prod() - both) if both > 0 else 0.0
    )


def by_hand():
    """Objects a, b, a and a difficult c; detections in the order of their kinds, and one of the difficult object."""
    boxes = [[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [80, 0, 90, 10]]
    guesses = [
        ([0, 0, 10, 9], 0, "correct"),
        ([25, 0, 35, 10], 1, "localisation"),
        ([20, 0, 30, 10], 2, "class"),
        ([4, 0, 14, 10], 1, "both"),
        ([0, 0, 10, 10], 0, "duplicate"),
        ([60, 0, 70, 10], 2, "background"),
        ([80, 0, 90, 10], 2, "ignored"),
    ]
    batch = {"boxes": np.array([boxes], np.float32), "labels": np.array([[0, 1, 0, 2]], np.int32)}
    batch |= {"mask": np.ones((1, 4), bool), "difficult": np.array([[False, False, False, True]])}
    outputs = {"boxes": np.array([[g[0] for g in guesses]], np.float32), "detected": np.ones((1, 7), bool)}
    outputs |= {"labels": np.array([[g[1] for g in guesses]], np.int32), "scores": np.linspace([1], [0.4], 7).T}
    return batch, outputs


def test_one_of_each_kind():
    batch, outputs = by_hand()
    found = mistakes.breakdown([(batch, outputs)], NAMES)
    nothing = dict.fromkeys(mistakes.KINDS, 0)
    assert found["a"] == nothing | {"correct": 1, "duplicate": 1, "missed": 1}  # b was placed badly, so not missed
    assert found["b"] == nothing | {"localisation": 1, "both": 1}
    assert found["c"] == nothing | {"class": 1, "background": 1}
    sure = mistakes.breakdown([(batch, outputs)], NAMES, score_threshold=0.95)
    assert sure["a"]["correct"] == 1 and sum(sum(kinds.values()) for kinds in sure.values()) == 3  # and two missed


def test_confusions_by_hand():
    batch, outputs = by_hand()
    matrix = mistakes.confusion([(batch, outputs)], NAMES)
    # The second detection of the first object, the one beside b, the one between and that of the background: nothing.
    np.testing.assert_array_equal(matrix, [[1, 0, 0, 1], [0, 0, 1, 0], [0, 0, 0, 0], [1, 2, 1, 0]])


def test_the_object_that_is_overlapped_most_is_confused():
    boxes = np.array([[[0, 0, 10, 10], [3, 0, 13, 10], [6, 0, 16, 10]]], np.float32)
    batch = {"boxes": boxes, "labels": np.array([[0, 1, 2]], np.int32), "mask": np.ones((1, 3), bool)}
    outputs = {"boxes": boxes[:, 1:2] + [[[-0.5, 0, -0.5, 0]]], "labels": np.zeros((1, 1), np.int32)}
    outputs |= {"scores": np.ones((1, 1), np.float32), "detected": np.ones((1, 1), bool)}
    for order in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        shuffled = {name: values[:, order] for name, values in batch.items()}
        matrix = mistakes.confusion([(shuffled, outputs)], NAMES)
        np.testing.assert_array_equal(matrix, [[0, 0, 0, 1], [1, 0, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]])


def brute_breakdown(batch, outputs, threshold=0.5, background=0.1, score=0.3):
    counts = {name: dict.fromkeys(mistakes.KINDS, 0) for name in NAMES}
    for i in range(len(batch["mask"])):
        objects = np.flatnonzero(batch["mask"][i])
        box, label = batch["boxes"][i].astype(float), batch["labels"][i]
        out = batch["difficult"][i] | batch["crowd"][i]
        guess, name = outputs["boxes"][i].astype(float), outputs["labels"][i]
        found, covered = set(), set()
        ordered = sorted(np.flatnonzero(outputs["detected"][i]), key=lambda d: -outputs["scores"][i, d])
        for d in ordered:
            if outputs["scores"][i, d] < score:
                continue
            own = [(iou(guess[d], box[j]), -j) for j in objects if label[j] == name[d]]
            other = [(iou(guess[d], box[j]), -j) for j in objects if label[j] != name[d]]
            right, its = max(own, default=(0.0, 0))
            wrong, others = max(other, default=(0.0, 0))
            if right > threshold and out[-its]:
                continue
            if right > threshold and its not in found:
                found.add(its)
                covered.add(-its)
                kind = "correct"
            elif max(right, wrong) <= background:
                kind = "background"
            elif background < right <= threshold:
                kind = "localisation"
                covered.add(-its)
            elif wrong > threshold:
                kind = "class"
                covered.add(-others)
            else:
                kind = "duplicate" if right > threshold else "both"
            counts[NAMES[name[d]]][kind] += 1
        for j in objects:
            if not out[j] and j not in covered:
                counts[NAMES[label[j]]]["missed"] += 1
    return counts


def brute_confusion(batch, outputs, threshold=0.5, score=0.3):
    matrix = np.zeros((4, 4), int)
    for i in range(len(batch["mask"])):
        free = set(np.flatnonzero(batch["mask"][i]).tolist())
        out = batch["difficult"][i] | batch["crowd"][i]
        for d in sorted(np.flatnonzero(outputs["detected"][i]), key=lambda d: -outputs["scores"][i, d]):
            if outputs["scores"][i, d] < score:
                continue
            guess = outputs["boxes"][i, d].astype(float)
            close = [(iou(guess, batch["boxes"][i, j].astype(float)), j) for j in free]
            close = [pair for pair in close if pair[0] > threshold]
            if not close:
                matrix[3, outputs["labels"][i, d]] += 1
                continue
            _, taken = max(close)
            free.discard(taken)
            if not out[taken]:
                matrix[batch["labels"][i, taken], outputs["labels"][i, d]] += 1
        for j in free:
            matrix[batch["labels"][i, j], 3] += not out[j]
    return matrix


@pytest.mark.parametrize("seed", range(4))
def test_random_scenes_by_definition(seed):
    batch, outputs = scenes(seed)
    batch["mask"][:, -1] = False  # two objects in one place are a tie, which either may win
    outputs["scores"] = np.random.default_rng(seed).permutation(outputs["scores"].size).astype(np.float32)
    outputs["scores"] = (outputs["scores"] / outputs["scores"].size).reshape(outputs["detected"].shape)
    found = mistakes.breakdown(in_batches(batch, outputs, 5), NAMES)
    assert found == brute_breakdown(batch, outputs)
    assert all(sum(found[name][kind] for name in NAMES) > 2 for kind in mistakes.KINDS)
    matrix = mistakes.confusion(in_batches(batch, outputs, 5), NAMES)
    np.testing.assert_array_equal(matrix, brute_confusion(batch, outputs))
    assert matrix.trace() > 20
