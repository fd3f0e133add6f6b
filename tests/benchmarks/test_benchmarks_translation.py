"""Torch's systems of translation have as many parameters as ours, and all contestants work at a small size."""

import jax
import pytest

from cvjax import config as experiments

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import translation

    return translation


def small(benchmark, word):
    """A case whose name begins with a word, with few pixels and features."""
    case = next(case for name, case in benchmark.CASES.items() if name.startswith(word))
    changes = {
        "CycleGAN": {"recipe.width": 2, "recipe.blocks": 1, "recipe.discriminator_width": 2, "recipe.pool": 2},
        "pix2pix": {"recipe.width": 2, "recipe.depth": 3, "recipe.discriminator_width": 2, "recipe.field": 16},
    }
    edsr = {"recipe.features": 2, "recipe.blocks": 1}
    size = (80, 40) if case.get("tile") else (32, 32)
    made = {**case, "size": size, "batch": 2 if "tile" not in case else 1, "changes": changes.get(word, edsr)}
    return made | ({"tile": 24} if case.get("tile") else {})


@pytest.mark.parametrize("index", range(6))
def test_networks_have_as_many_parameters_as_ours(benchmark, index):
    case = [*benchmark.CASES.values()][index]
    config = benchmark.experiment(case)
    recipe = experiments.build(config)
    state = jax.eval_shape(recipe.init, jax.random.key(0), benchmark.described(case))
    theirs = benchmark.torch_translation.networks(benchmark.system(config), config["recipe"])
    ours = {name: sum(leaf.size for leaf in jax.tree.leaves(params)) for name, params in state.params.items()}
    assert {name: sum(p.numel() for p in net.parameters()) for name, net in theirs.items()} == ours


@pytest.mark.parametrize("word", ["CycleGAN", "pix2pix", "EDSR", "Small EDSR"])
def test_contestants_work(benchmark, word):
    case = small(benchmark, word)
    for make in benchmark.makers(case).values():
        work = make()
        for _ in range(3):  # so that the pools are full
            found = work()
        assert "tile" not in case or found.shape[-3:-1] == tuple(2 * side for side in case["size"])


@pytest.mark.parametrize("index", range(3))
def test_films_are_translated_whole_and_by_the_network_alone(benchmark, monkeypatch, index):
    monkeypatch.setattr(benchmark, "FRAMES", 2)
    case = [*benchmark.FILMS.values()][index]
    narrow = {"own_pairs": {"recipe.width": 2, "recipe.depth": 3, "recipe.discriminator_width": 2, "recipe.field": 16}}
    narrow["cyclegan_horse2zebra"] = {"recipe.width": 2, "recipe.blocks": 1, "recipe.discriminator_width": 2}
    narrow["cyclegan_horse2zebra"] |= {"recipe.field": 16, "recipe.pool": 2}
    narrow["edsr_photos"] = {"recipe.features": 2, "recipe.blocks": 1}
    case = {**case, "size": (32, 32), "changes": narrow[case["config"]]}
    for make in (benchmark.applied_film, benchmark.plain_film):
        make(case)()
    line = benchmark.film_row("name", {"apply": [200.0, 100.0, 100.0], "network": [50.0, 50.0, 40.0]})
    assert line == "| name | 20.0 | 40.0 | 0.40 |"
