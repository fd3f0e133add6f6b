"""The benchmark of NMS and figures, at a tiny size: both sides give the same answers, and lines come out."""

import numpy as np
import pytest

from benchmarks import detection_ops, report

pytestmark = pytest.mark.slow


def test_both_choose_the_same_boxes(monkeypatch):
    monkeypatch.setattr(detection_ops, "BOXES", 200)
    monkeypatch.setattr(detection_ops, "CHOSEN", 40)
    for settings, _ in detection_ops.NMS_ROWS.values():
        indices, valid = map(np.asarray, detection_ops.ours(**settings)())
        theirs = detection_ops.theirs(**settings)()
        if settings.get("by_class"):
            assert set(indices[valid]) <= set(range(200)) and sum(map(len, theirs)) >= valid.sum()
            continue
        for row, expected in enumerate(theirs):
            np.testing.assert_array_equal(np.atleast_2d(indices)[row][np.atleast_2d(valid)[row]], expected)


def test_a_bar_that_is_missed_is_said(monkeypatch):
    name, *_ = detection_ops.NMS_ROWS
    monkeypatch.setattr(detection_ops, "BOXES", 200)
    for milliseconds, met in [(11.0, True), (13.0, False)]:
        times = {"ours": [milliseconds] * 2, "numpy": [110.0] * 2}
        monkeypatch.setattr(report, "interleave", lambda makers, rounds, times=times: times)
        line, fine = detection_ops.nms_row(name, rounds=2)
        assert fine == met and "<= 12 ms" in line and f"| {milliseconds:.2f} | 110.0 |" in line


def test_figures_are_compared_and_timed():
    line = detection_ops.figures_row(images=6)
    assert line.startswith("| VOC's and COCO's figures of 6 images x 100 detections") and line.count("|") == 6
