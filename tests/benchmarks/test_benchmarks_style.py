"""The contestants of style transfer work at a tiny size, count their evaluations, and have equal parameters."""

import jax
import jax.numpy as jnp
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import style

    return style


@pytest.mark.parametrize("optimiser", ["lbfgs", "adam"])
def test_descents_are_as_long_on_both_sides(benchmark, optimiser, monkeypatch):
    monkeypatch.setattr(benchmark, "EVALUATIONS", 3)
    for make in benchmark.makers(dict(size=32, width=2, optimiser=optimiser)).values():
        make()()
        assert 3 <= benchmark.evaluations("") <= 8


def test_the_networks_of_styles_have_equal_parameters(benchmark):
    case = benchmark.CASES["26 styles, 512 x 512, one picture"]
    ours = benchmark.TransformNet(26, case["widths"], case["blocks"], case["expand"])
    held = jax.eval_shape(ours.init, jax.random.key(0), jnp.zeros((1, 32, 32, 3)))
    theirs = benchmark.Transform(case["widths"], case["blocks"], case["expand"])
    assert sum(leaf.size for leaf in jax.tree.leaves(held)) == sum(p.numel() for p in theirs.parameters())
    for make in benchmark.makers(case | {"size": 32}).values():
        make()()
        assert benchmark.evaluations("") == 1
