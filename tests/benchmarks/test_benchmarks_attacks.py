"""The benchmark of attacks at a tiny size: torch's classifier is ours, and both sides do the same work."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.weights import digit_classifier

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import attacks

    return attacks


def test_torchs_classifier_is_ours(benchmark):
    import torch

    images, _ = benchmark.digits(8)
    ours = digit_classifier.NET.apply({"params": digit_classifier.load()}, jnp.asarray(images))[0]
    with torch.no_grad():
        theirs = benchmark.TorchClassifier()(torch.from_numpy(images.transpose(0, 3, 1, 2).copy()))
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # float32


def test_both_attacks_raise_the_loss_alike(benchmark):
    images, labels = benchmark.digits(32)

    def loss(found):
        logits = digit_classifier.NET.apply({"params": digit_classifier.load()}, jnp.asarray(found))[0]
        return float(-jax.nn.log_softmax(logits)[np.arange(32), labels].mean())

    ours = np.asarray(benchmark.our_pgd(32, 5)())
    theirs = benchmark.torch_pgd(32, 5)().numpy().transpose(0, 2, 3, 1)
    assert max(np.abs(some - images).max() for some in (ours, theirs)) <= benchmark.EPSILON + 1e-6
    assert abs(loss(ours) / loss(theirs) - 1) < 0.1 and loss(ours) > 1.5 * loss(images)  # other random starts


def test_both_loops_evolve_and_a_missed_bar_is_said(benchmark):
    sure = [np.mean(make(20, 30)()) for make in (benchmark.compiled_loop, benchmark.python_loop)]
    assert min(sure) > 0.3 and abs(sure[0] - sure[1]) < 0.25  # other random numbers
    line, met = benchmark.row("PGD", 1.0, {"ours": [3.0, 3.0], "torch": [2.0, 2.0]})
    assert "| 1.50 (1.50 to 1.50) | 3.0 | 2.0 |" in line and not met
