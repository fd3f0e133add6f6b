"""Our triplet step and torch's have the same gradient."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.parity]


def test_contestants_have_the_same_gradient():
    pytest.importorskip("torch")
    from benchmarks import recognition

    one, two = (make(120)() for make in (recognition.ours, recognition.theirs))
    assert np.abs(two).max() > 1e-4
    np.testing.assert_allclose(one, two, atol=1e-6)
