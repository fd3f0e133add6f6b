"""Retrieval by loops over all pictures."""

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.metrics import retrieval


def test_figures_are_those_of_loops_over_all_queries():
    rng = np.random.default_rng(0)
    labels = np.array([4, 4, 4, 1, 1, 9, 2, 2, 2, 2, 1, 7])
    embeddings = (rng.normal(size=(10, 3))[labels] + rng.normal(size=(12, 3))).astype(np.float32)
    first, precision = [], []
    for query, label in enumerate(labels):
        others = [row for row in range(12) if row != query]
        relevant = sum(labels[row] == label for row in others)
        if relevant:
            others.sort(key=lambda row: np.linalg.norm(embeddings[row] - embeddings[query]))
            first.append(labels[others[0]] == label)
            precision.append(np.mean([labels[row] == label for row in others[:relevant]]))
    assert len(first) == 10 and 0 < np.mean(first) < 1
    found = retrieval.figures(embeddings, labels)
    assert found == pytest.approx({"recall_at_1": np.mean(first), "r_precision": np.mean(precision)})


def test_a_network_of_one_answer_finds_nothing():
    found = retrieval.figures(np.ones((9, 4), np.float32), np.repeat([0, 1, 2], 3))
    assert found == {"recall_at_1": 0, "r_precision": 0}


def test_many_pictures_are_asked_for_by_the_same_draw(monkeypatch):
    monkeypatch.setattr(retrieval, "QUERIES", 20)
    embeddings = np.random.default_rng(0).normal(size=(60, 2))
    found = [retrieval.figures(embeddings, np.arange(60) % 4) for _ in range(2)]
    assert found[0] == found[1] and found[0]["recall_at_1"] * 20 == pytest.approx(round(found[0]["recall_at_1"] * 20))


def test_pictures_that_are_all_alone_in_their_class_are_refused():
    with pytest.raises(UserError, match="every one of the 3 pictures is alone"):
        retrieval.figures(np.eye(3), np.arange(3))


def test_pictures_of_one_class_are_refused():
    with pytest.raises(UserError, match="all 3 pictures are of one class"):
        retrieval.figures(np.eye(3), np.zeros(3, int))
