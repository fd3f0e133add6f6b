"""The benchmark of diffusion at a tiny size: torch's U-Net is ours and learns, both samplers draw the same images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import config as experiments

pytestmark = [pytest.mark.slow, pytest.mark.parity]

UNET = {"width": 8, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
SMALL = {f"recipe.unet.{name}": size for name, size in UNET.items()} | {"data.batch": 4, "recipe.process.steps": 6}


@pytest.fixture(scope="module")
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import diffusion

    return diffusion


@pytest.mark.parametrize("index", range(2))
def test_the_network_has_as_many_parameters_as_ours(benchmark, index):
    config = benchmark.steps.experiment(*[*benchmark.TRAINED.values()][index])
    net = benchmark.torch_diffusion.UNet(config["recipe"])
    recipe = experiments.build(config)
    shapes = jax.eval_shape(recipe.init, jax.random.key(0), {"image": jnp.zeros((1, *config["recipe"]["shape"]))})
    assert sum(values.numel() for values in net.parameters()) == sum(x.size for x in jax.tree.leaves(shapes.params))


def test_the_network_is_ours(benchmark):
    import torch

    config = benchmark.steps.experiment("ddpm_digits", SMALL)
    net, ours = benchmark.torch_diffusion.UNet(config["recipe"]).eval(), experiments.build(config).networks["unet"]
    noisy, steps = jax.random.normal(jax.random.key(0), (3, 8, 8, 1)), jnp.array([0, 2, 5])
    params = {}
    with torch.no_grad():
        for name, values in net.named_parameters():
            values += 0.1 * torch.randn_like(values)
            *path, kind = name.removeprefix("layers.").split(".")
            held = params
            for part in path:
                held = held.setdefault(part, {})
            kernel = {4: (2, 3, 1, 0), 2: (1, 0), 1: (0,)}[values.ndim]
            name = "bias" if kind == "bias" else "scale" if values.ndim == 1 else "kernel"
            held[name] = values.numpy().transpose(kernel)
        theirs = net(torch.from_numpy(np.array(noisy).transpose(0, 3, 1, 2)), torch.tensor([0, 2, 5]))
    found = jax.jit(ours.apply)({"params": params}, noisy, steps)
    scale = float(jnp.abs(found).max())
    np.testing.assert_allclose(found, theirs.permute(0, 2, 3, 1), atol=1e-4 * scale)  # float32, sums in another order
    assert scale > 0.1


def test_torch_learns(benchmark, monkeypatch):
    import torch

    kept, kind = [], benchmark.torch_diffusion.UNet
    monkeypatch.setattr(benchmark.torch_diffusion, "UNet", lambda recipe: kept.append(kind(recipe)) or kept[0])
    work = benchmark.torch_step(benchmark.steps.experiment("ddpm_digits", SMALL | {"data.batch": 32}))
    before = [values.detach().clone() for values in kept[0].parameters()]
    for _ in range(60):
        work()
    assert all((old != new).any() for old, new in zip(before, kept[0].parameters(), strict=True))
    torch.manual_seed(1)
    noise = torch.randn(64, 1, 8, 8)
    with torch.no_grad():  # at the last step there is nothing but noise, which a network that has learned gives back
        assert (kept[0](noise, torch.full((64,), 5)) - noise).square().mean() < 0.5


def test_both_samplers_draw_the_same_images(benchmark):
    config = benchmark.steps.experiment("ddpm_digits", SMALL)
    scan, loop = (benchmark.sampler(config, 3, compiled) for compiled in (True, False))
    for _ in range(2):
        first, second = scan(), loop()
        np.testing.assert_allclose(first, second, atol=1e-5)
    assert first.shape == (3, 8, 8, 1) and first.std() > 0.1


def test_rows_say_whether_a_bar_is_met(benchmark, monkeypatch):
    name = "64 digits, configs/ddpm_digits.py"
    for scan, met in [(3.0, False), (1.0, True)]:
        times = {"scan": [scan * 1e3] * 2, "loop": [2e3] * 2}
        monkeypatch.setattr(benchmark.report, "interleave", lambda makers, rounds, times=times: times)
        line, fine = benchmark.sampling_row(name, 2)
        assert fine == met and f"| <= 1.0 | {scan / 2:.2f} (" in line and line.endswith(f"| {64 / scan:.3g} | 32 |")
