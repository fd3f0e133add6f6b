"""A detector's figures: their names and ends, in a stream that forgets what it has seen."""

import gc
import time
import weakref

import numpy as np
import pytest
from detection_scenes import in_batches, scenes

from cvjax.errors import UserError
from cvjax.metrics import detection, plots

NAMES = ("a", "b", "c")
PER_CLASS = {f"{figure}/{name}" for figure in ("voc07", "ap") for name in NAMES}


def perfect(batch):
    outputs = {"boxes": batch["boxes"], "labels": batch["labels"], "detected": batch["mask"]}
    return outputs | {"scores": np.random.default_rng(0).uniform(0.1, 1, batch["mask"].shape).astype(np.float32)}


def test_perfect_detections_have_perfect_figures_and_none_have_none():
    batch, outputs = scenes(0)
    batch["crowd"][:] = batch["difficult"][:] = False
    batch["mask"][:, -1] = False  # of two objects in one place the VOC lets only the first be found
    found = detection.figures(in_batches(batch, perfect(batch), 5), NAMES)
    assert set(found) > PER_CLASS | {"map_voc07", "map_voc", "ap", "ap50", "ap75", "ar_100"}
    assert all(type(value) is float for value in found.values())
    for name in ("map_voc07", "map_voc", "ap", "ap50", "ar_100", *PER_CLASS):
        assert found[name] == pytest.approx(1), name
    outputs["detected"][:] = False
    nothing = detection.figures(in_batches(batch, outputs, 5), NAMES)
    assert nothing["map_voc07"] == nothing["ap"] == nothing["voc07/a"] == 0


def test_without_objects_there_is_nothing_to_measure_by():
    batch, outputs = scenes(0)
    lacking = {**batch, "mask": batch["mask"] & (batch["labels"] != 2)}
    found = detection.figures(in_batches(lacking, perfect(batch), 5), NAMES)
    assert found["voc07/c"] == found["ap/c"] == -1 and found["map_voc07"] == np.mean(
        [found["voc07/a"], found["voc07/b"]]
    )
    empty = {**batch, "mask": np.zeros_like(batch["mask"])}
    for rows in (in_batches(empty, outputs, 5), []):
        assert set(detection.figures(rows, NAMES).values()) == {-1.0}


def test_padding_is_told_by_masks_alone():
    batch, outputs = scenes(1)
    found = detection.figures(in_batches(batch, outputs, 5), NAMES)
    batch["boxes"][~batch["mask"]] = np.nan
    batch["labels"][~batch["mask"]] = -7
    outputs["scores"][~outputs["detected"]] = np.inf
    outputs["labels"][~outputs["detected"]] = 99
    assert detection.figures(in_batches(batch, outputs, 5), NAMES) == found


def test_batches_are_forgotten():
    alive = []

    def rows():
        for seed in range(5):
            batch, outputs = scenes(seed, images=2)
            batch["image"] = np.zeros((2, 8, 8, 3), np.float32)
            alive.extend(weakref.ref(array) for array in (*batch.values(), *outputs.values()))
            yield batch, outputs
            del batch, outputs
            gc.collect()
            remaining.append(sum(ref() is not None for ref in alive))

    remaining = []
    detection.figures(rows(), NAMES)
    # The loop's own variables hold the last batch until the next one comes.
    assert len(remaining) == 5 and max(remaining) <= len(alive) / 5


def test_a_label_beyond_the_classes_is_named():
    batch, outputs = scenes(0)
    for wrong in (batch, outputs):
        wrong["labels"] = wrong["labels"] + 1
        with pytest.raises(UserError, match=r"label of an (object|detection) is 3; there are 3 classes, 0 to 2"):
            detection.figures(in_batches(batch, outputs, 5), NAMES)
        wrong["labels"] = wrong["labels"] - 1


def test_a_thousand_images_take_two_seconds():
    batch, outputs = scenes(0, images=1000, detections=20, classes=3)
    start = time.process_time()
    detection.figures(in_batches(batch, outputs, 64), NAMES)
    assert time.process_time() - start < 2


def test_the_table_has_a_line_a_class():
    batch, outputs = scenes(1)
    batch["mask"] &= batch["labels"] != 1
    _, per_class = detection.measure(in_batches(batch, outputs, 8), NAMES)
    lines = detection.table(per_class).splitlines()
    assert len(lines) == 5 and all(line.count("|") == 7 for line in lines)
    assert f"{per_class['a']['voc07']:.3f} | {per_class['a']['voc']:.3f}" in lines[2]
    assert lines[3] == "| b | 0 | – | – | – | – |"


def test_curves_are_drawn_where_they_are():
    recall = np.linspace(0.1, 1, 10)
    empty = plots.draw_precision_recall({})

    def height_of(precision):
        drawn = plots.draw_precision_recall({"thing": (recall, np.full(10, precision))})
        assert drawn.shape == empty.shape and drawn.dtype == np.float32 and 0 <= drawn.min() <= drawn.max() <= 1
        columns = slice(int(0.7 * drawn.shape[1]), int(0.8 * drawn.shape[1]))  # right of the legend
        return np.nonzero((drawn - empty)[:, columns])[0].mean() / len(drawn)

    assert height_of(0.9) < height_of(0.5) - 0.2 < height_of(0.2) - 0.4
    several = {name: (recall, recall[::-1]) for name in "abcdefghijklmnopqrstuvwxyz"}
    assert plots.draw_precision_recall(several, title="many").shape == empty.shape


def test_confusions_are_drawn():
    matrix = np.array([[5, 1, 0], [0, 4, 2], [3, 0, 0]])
    drawn = plots.draw_confusion(matrix, ["cat", "dog"])
    assert drawn.ndim == 3 and (drawn != plots.draw_confusion(matrix.T, ["cat", "dog"])).any()
