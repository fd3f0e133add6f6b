"""Recall of proposals as loops count it, and its average as an integral."""

import numpy as np
import pytest

from cvjax.metrics import plots, proposals

COUNTS = (1, 3, 8, 50)


def random_boxes(generator, *shape):
    near = generator.uniform(0, 20, (*shape, 2))
    return np.concatenate([near, near + generator.uniform(3, 20, (*shape, 2))], axis=-1).astype(np.float32)


def batches(seed=0, objects=4, count=12):
    """Two batches of three images; the first image has no objects, the second no proposals."""
    generator = np.random.default_rng(seed)
    made = []
    for number in range(2):
        mask = generator.uniform(size=(3, objects)) < 0.7
        present = np.arange(count) < generator.integers(2, count + 1, (3, 1))
        if number == 0:
            mask[0], present[1] = False, False
            mask[1:, 0] = True
        batch = {"boxes": random_boxes(generator, 3, objects), "mask": mask}
        batch |= {name: generator.uniform(size=mask.shape) < 0.2 for name in ("difficult", "crowd")}
        batch |= {"proposals": random_boxes(generator, 3, count), "proposals_mask": present}
        batch["boxes"][2, 1, 2:] = batch["boxes"][2, 1, :2]  # empty
        made.append(batch)
    return made


def overlap_of(a, b):
    width, height = (max(min(a[i + 2], b[i + 2]) - max(a[i], b[i]), 0) for i in (0, 1))
    area = lambda box: (box[2] - box[0]) * (box[3] - box[1])  # noqa: E731
    return width * height / (area(a) + area(b) - width * height) if width * height else 0.0


def test_best_overlaps_are_those_of_loops():
    expected = []
    for batch in batches():
        for image in range(3):
            boxes = batch["proposals"][image][batch["proposals_mask"][image]]
            for row, box in enumerate(batch["boxes"][image].astype(float)):
                counted = batch["mask"][image, row] and not (batch["difficult"] | batch["crowd"])[image, row]
                if counted and box[2] > box[0]:
                    ious = [overlap_of(box, other.astype(float)) for other in boxes]
                    expected.append([max(ious[:count], default=0.0) for count in COUNTS])
    found = proposals.best_overlaps(batches(), COUNTS)
    assert 5 < len(found) == len(expected) and (found == 0).any() and (found > 0.3).any()
    np.testing.assert_allclose(found, expected, atol=1e-12)
    for iou in (0.2, 0.5):
        shares = [np.mean([row[place] >= iou for row in expected]) for place in range(len(COUNTS))]
        np.testing.assert_allclose(proposals.recall(found, iou), shares)


def test_average_recall_is_twice_the_area_below_the_curve():
    best = proposals.best_overlaps(batches(3, objects=30, count=300), COUNTS)
    fine = np.linspace(0.5, 1, 100_001)
    areas = [np.trapezoid([(best[:, place] >= iou).mean() for iou in fine[::50]], fine[::50]) for place in range(4)]
    assert areas[-1] > 0.05
    np.testing.assert_allclose(proposals.average_recall(best), 2 * np.array(areas), atol=1e-3)  # steps of 0.00025
    perfect = np.ones((3, 2))
    np.testing.assert_array_equal(proposals.average_recall(perfect), 1)


def test_an_overlap_of_exactly_the_threshold_is_found_and_order_matters():
    box = np.float32([[[0, 0, 10, 10]]])
    boxes = np.float32([[[0, 0, 2, 10], [0, 0, 5, 10], [0, 0, 10, 10]]])
    batch = {"boxes": box, "mask": np.array([[True]]), "spots": boxes, "spots_mask": np.ones((1, 3), bool)}
    best = proposals.best_overlaps([batch], (1, 2, 3), feature="spots")
    np.testing.assert_allclose(best, [[0.2, 0.5, 1.0]])
    np.testing.assert_array_equal(proposals.recall(best, 0.5), [0, 1, 1])


def test_without_objects_there_is_no_recall():
    batch = batches()[0]
    best = proposals.best_overlaps([batch | {"mask": np.zeros_like(batch["mask"])}], COUNTS)
    assert best.shape == (0, 4)
    assert np.isnan(proposals.recall(best)).all() and np.isnan(proposals.average_recall(best)).all()


@pytest.mark.filterwarnings("error")
def test_curves_are_drawn():
    best = proposals.best_overlaps(batches(), COUNTS)
    by_number = proposals.curves_by_number(best, COUNTS)
    ious, values = proposals.curve_by_iou(best, 3)
    assert (np.diff(values) <= 0).all() and values[0] == proposals.recall(best, 0.5)[3] and ious[-1] == 1
    for numbers, values in by_number.values():
        assert (np.diff(values) >= 0).all() and numbers.tolist() == list(COUNTS)
    drawn = plots.draw_recalls(by_number, {"50": (ious, values)} | {"50": proposals.curve_by_iou(best, 3)}, "recall")
    one = plots.draw_recalls({}, {"50": proposals.curve_by_iou(best, 3)}, "recall")
    assert drawn.shape == (540, 1200, 3) and (drawn != one).any()
