"""The benchmark of galleries at a small size: both find the same people."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("faiss")
    from benchmarks import gallery

    return gallery


def test_both_find_the_same_people(benchmark):
    ours, theirs = (make(3000)() for make in (benchmark.ours, benchmark.theirs))
    np.testing.assert_array_equal(ours, theirs)
    np.testing.assert_array_equal(ours, np.arange(benchmark.QUERIES))


def test_a_missed_bar_is_said(benchmark, monkeypatch):
    monkeypatch.setattr(benchmark, "SIZES", (100,))
    monkeypatch.setattr(benchmark.report, "interleave", lambda makers, rounds: {"ours": [2e3] * 2, "faiss": [1e3] * 2})
    line, met = benchmark.row(100, 2)
    assert "| 100 | <= 1000 | 2000.00 | 1000.00 | 2.00 (2.00 to 2.00) |" in line and not met
