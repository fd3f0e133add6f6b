"""The benchmarks' own functions run at a tiny size and report ratios; what they measure is not judged here."""

import jax
import numpy as np
import pytest

from benchmarks import loop
from cvjax import config as experiments

pytestmark = pytest.mark.slow


def test_the_loop_the_bare_loop_and_the_loader_are_timed_in_turn():
    times = loop.measure("configs/vae_digits.py:smoke", rounds=2, segment=3)
    assert {name: len(seconds) for name, seconds in times.items()} == {"fit": 2, "bare": 2, "loader": 2}
    assert min(min(seconds) for seconds in times.values()) > 0
    times = {"fit": [2.0, 2.2], "bare": [2.0, 2.0], "loader": [0.5, 0.5]}
    (fit, quick), (loader, ahead) = loop.rows("VAE", times, batch=8, segment=4)
    assert "| 1.050 (1.025 to 1.075) |" in fit and quick  # the bar is inclusive
    assert "| 4.0 (4.0 to 4.0) | 64 and 16 examples/s |" in loader and ahead


def test_memory_is_read_twice_in_one_run():
    resident = loop._memory("configs/vae_digits.py", early=2, late=4)
    assert list(resident) == [2, 4] and min(resident.values()) > 2**20
    line, met = loop.memory_row("VAE", {2: 100 * 2**20, 4: 103 * 2**20})
    assert "| 1.030 | 103 and 100 MiB |" in line and not met


@pytest.mark.parity
@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("vae_digits", {"recipe.hidden": (16,), "data.batch": 8}),
        ("dcgan_digits", {"recipe.width": 4, "data.batch": 8}),
        ("wgan_gp_digits", {"recipe.width": 4, "data.batch": 40}),
        ("sagan_digits", {"recipe.width": 8, "data.batch": 8}),
    ],
)
def test_torch_is_timed_on_the_same_networks(file, changes):
    pytest.importorskip("torch")
    from benchmarks import steps

    config = steps.experiment(file, changes)
    nets = steps.torch_networks(config)
    state = jax.eval_shape(experiments.build(config).init, jax.random.key(0), steps.batches(config)[0])
    counts = {name: sum(p.numel() for p in net.parameters()) for name, net in nets.items()}
    assert sum(counts.values()) == sum(leaf.size for leaf in jax.tree.leaves(state.params))
    for work in (steps.ours(config), steps.theirs(config)):
        work()
        work()


@pytest.mark.parity
def test_the_papers_networks_are_those_of_the_recipe():
    pytest.importorskip("torch")
    from benchmarks import steps

    _, file, changes, _ = steps.CASES["DCGAN of the paper, 64 px, batch 32"]
    config = steps.experiment(file, changes)
    image = jax.ShapeDtypeStruct((32, 64, 64, 3), np.float32)
    state = jax.eval_shape(experiments.build(config).init, jax.random.key(0), {"image": image})
    for name, net in steps.torch_networks(config).items():
        ours = sum(leaf.size for leaf in jax.tree.leaves(state.params[name]))
        assert ours == sum(p.numel() for p in net.parameters()), name


@pytest.mark.parity
def test_a_step_over_the_bar_is_said():
    pytest.importorskip("torch")
    from benchmarks import steps

    line, met = steps.row("VAE", 1.0, {"ours": [3.0, 3.0], "torch": [2.0, 2.0]})
    assert "| 1.50 (1.50 to 1.50) | 3.00 | 2.00 |" in line and not met
