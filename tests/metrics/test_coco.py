"""COCO's figures, batch by batch, equal pycocotools' own over the whole set; and the details that make them COCO's."""

import json

import numpy as np
import pytest
from detection_scenes import in_batches, scenes

from cvjax.metrics import coco, detection

NAMES = ("a", "b", "c")
# Means of the same float64 numbers, which differ in the order of their sums.
TOLERANCE = 1e-13


def both(batch, outputs, size=7):
    ours = detection.figures(in_batches(batch, outputs, size), NAMES)
    dataset, results = coco.convert(in_batches(batch, outputs, size), NAMES)
    return {name: ours[name] for name in coco.FIGURES}, coco.pycocotools_figures(dataset, results)


@pytest.mark.parametrize("seed", range(8))
def test_equals_pycocotools(seed):
    """Crowds, annotated areas, equal scores, overlaps that equal thresholds, one object twice, empty images."""
    batch, outputs = scenes(seed, grid=seed % 2 > 0, size=[150.0, 400.0][seed // 2 % 2])
    ours, theirs = both(batch, outputs)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert 0.05 < theirs["ap"] < theirs["ap50"] < 0.95 and theirs["ar_1"] < theirs["ar_10"]


def test_equals_pycocotools_beyond_a_hundred_detections_of_a_class():
    batch, outputs = scenes(11, images=3, detections=420, classes=3)
    outputs["labels"][:] = np.random.default_rng(0).choice(3, 420, p=[0.8, 0.1, 0.1])
    ours, theirs = both(batch, outputs)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)


def test_the_size_of_batches_does_not_matter():
    batch, outputs = scenes(3, grid=True)
    figures = [detection.figures(in_batches(batch, outputs, size), NAMES) for size in (1, 5, 24)]
    assert figures[0] == figures[1] == figures[2]


@pytest.mark.parametrize("missing", ["objects", "detections", "class", "area"])
def test_equals_pycocotools_where_something_is_missing(missing):
    batch, outputs = scenes(5, images=8)
    if missing == "objects":
        batch["mask"][:] = False
    if missing == "detections":
        outputs["detected"][:] = False
    if missing == "class":
        batch["mask"] &= batch["labels"] != 1
    if missing == "area":
        del batch["area"]
    ours, theirs = both(batch, outputs)
    assert ours == pytest.approx(theirs, abs=TOLERANCE)
    assert {"objects": ours["ap"] == -1, "detections": ours["ap"] == 0}.get(missing, ours["ap"] > 0)


def scene(boxes, guesses, **flags):
    """One image of one class; the first detection scores most."""
    batch = {"boxes": np.array([boxes], np.float32), "labels": np.zeros((1, len(boxes)), np.int32)}
    batch |= {"mask": np.ones((1, len(boxes)), bool)} | {name: np.array([values]) for name, values in flags.items()}
    outputs = {"boxes": np.array([guesses], np.float32), "labels": np.zeros((1, len(guesses)), np.int32)}
    outputs |= {"scores": np.linspace(1, 0.5, len(guesses), dtype=np.float32)[None]}
    return batch, outputs | {"detected": np.ones((1, len(guesses)), bool)}


def test_a_crowd_takes_any_number_of_detections_and_asks_only_to_be_covered():
    crowd, person = [0, 0, 100, 100], [200, 0, 240, 40]
    inside = [[10, 10, 30, 40], [50, 50, 60, 60], [5, 70, 30, 95]]
    batch, outputs = scene([crowd, person], [*inside, person], crowd=[True, False])
    assert detection.figures([(batch, outputs)], ["person"])["ap"] == pytest.approx(1)
    batch["crowd"][:] = False
    assert detection.figures([(batch, outputs)], ["person"])["ap"] < 0.2


@pytest.mark.parametrize("last", ["left", "right"])
def test_of_two_objects_overlapped_equally_the_last_is_taken(last):
    left, right, between = [0, 0, 10, 10], [4, 0, 14, 10], [2, 0, 12, 10]
    batch, outputs = scene([left, right] if last == "right" else [right, left], [between, left])
    found = detection.figures([(batch, outputs)], ["thing"])["ap50"]
    dataset, results = coco.convert([(batch, outputs)], ["thing"])
    assert found == pytest.approx(coco.pycocotools_figures(dataset, results)["ap50"], abs=TOLERANCE)
    assert (found > 0.99) == (last == "right")  # else the second detection finds its object taken


def test_sizes_go_by_the_annotated_area():
    batch, outputs = scene([[0, 0, 100, 100]], [[0, 0, 100, 100]], area=np.array([500.0], np.float32))
    found = detection.figures([(batch, outputs)], ["thing"])
    assert found["ap_small"] == pytest.approx(1) and found["ap_medium"] == found["ap_large"] == -1
    del batch["area"]
    found = detection.figures([(batch, outputs)], ["thing"])
    assert found["ap_large"] == pytest.approx(1) and found["ap_small"] == -1


def test_the_converter_writes_cocos_json():
    batch, outputs = scenes(2, images=3)
    batch["image"] = np.zeros((3, 48, 64, 3), np.float32)
    dataset, results = coco.convert(in_batches(batch, outputs, 2), NAMES, category_ids=[1, 5, 90])
    json.dumps([dataset, results])
    assert [(image["id"], image["height"], image["width"]) for image in dataset["images"]] == [
        (1, 48, 64),
        (2, 48, 64),
        (3, 48, 64),
    ]
    assert dataset["categories"][2] == {"id": 90, "name": "c"}
    assert len(dataset["annotations"]) == batch["mask"].sum() and len(results) == outputs["detected"].sum()
    i, j = (int(part[0]) for part in np.nonzero(batch["mask"]))
    x1, y1, x2, y2 = batch["boxes"][i, j].tolist()
    first = dataset["annotations"][0]
    assert first["bbox"] == [x1, y1, x2 - x1, y2 - y1] and first["image_id"] == i + 1 and first["id"] == 1
    assert first["category_id"] == [1, 5, 90][batch["labels"][i, j]] and first["area"] == float(batch["area"][i, j])
