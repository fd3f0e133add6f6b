"""The benchmark of autoregressive models at a tiny size: both ways draw the same images, torch's network is ours."""

import jax
import numpy as np
import pytest

pytestmark = pytest.mark.slow

SMALL = {f"recipe.architecture.{name}": size for name, size in {"layers": 2, "width": 4, "head": 6}.items()}
SMALL |= {"data.batch": 8}


@pytest.fixture
def benchmark():
    pytest.importorskip("torch")
    from benchmarks import autoregressive

    return autoregressive


def torch_images(batch):
    import torch

    return torch.tensor(np.asarray(batch["image"]).transpose(0, 3, 1, 2))


@pytest.mark.parity
@pytest.mark.parametrize("name", ["pixelcnn_digits", "gated_pixelcnn_digits", "pixelrnn_digits"])
def test_both_ways_draw_the_same_images(benchmark, name):
    config = benchmark.steps.experiment(name, SMALL)
    naive, cached = (benchmark.sampler(config, cached, images=3) for cached in (False, True))
    for _ in range(2):
        first, second = naive(), cached()
        np.testing.assert_array_equal(first, second)
    assert first.shape == (3, 8, 8, 1) and len(np.unique(first)) > 5


@pytest.mark.parity
def test_torchs_network_is_ours(benchmark):
    import torch

    changes = SMALL | {"recipe.shape": (32, 32, 3), "data.name": "photos/32"}
    for rgb in (False, True):
        config = benchmark.steps.experiment("pixelcnn_digits", changes if rgb else SMALL)
        placed = [jax.device_put(batch) for batch in benchmark.steps.batches(config)]
        _, state = benchmark.steps.begin(config, placed[0])
        peer = benchmark.Peer(config["recipe"]).eval()
        params = state.params["pixelcnn"]
        layers = [params["MaskedConv_0"]]
        layers += [params[f"ResidualBlock_{block}"][f"MaskedConv_{n}"] for block in range(2) for n in range(3)]
        layers += [params["Head_0"][f"MaskedConv_{n}"] for n in range(2)]
        theirs = [module for module in peer.modules() if isinstance(module, torch.nn.Conv2d)]
        for layer, module in zip(layers, theirs, strict=True):
            module.weight.data = torch.tensor(np.asarray(layer["kernel"]).transpose(3, 2, 0, 1))
            module.bias.data = torch.tensor(np.asarray(layer["bias"]))
        images = placed[0]["image"]
        net = benchmark.network(config)
        levels = config["recipe"]["levels"]
        inputs = benchmark.pixel_model.quantise(images, levels) / (levels - 1)
        ours = benchmark.pixel_model.bits_per_dim(jax.jit(net.apply)({"params": params}, inputs), inputs).mean()
        found = peer(torch_images({"image": images}))
        np.testing.assert_allclose(ours, found.item(), rtol=1e-5)  # float32


@pytest.mark.parity
def test_rows_say_whether_a_bar_is_met(benchmark, monkeypatch):
    for naive, met in [(12.0, True), (9.0, False)]:
        times = {"naive": [naive] * 2, "cached": [2.0] * 2}
        monkeypatch.setattr(benchmark.report, "interleave", lambda makers, rounds, times=times: times)
        line, fine = benchmark.sampling_row("PixelCNN, configs/pixelcnn_digits.py")
        assert fine == met and f"| >= 5.0 | {naive / 2:.1f} (" in line and f"| {naive:.1f} | 2.0 |" in line
    times = {"ours": [3.2] * 2, "torch": [2.0] * 2}
    monkeypatch.setattr(benchmark.report, "interleave", lambda makers, rounds: times)
    line, met = benchmark.training_row("PixelCNN, configs/pixelcnn_digits.py")
    assert "| <= 1.5 | 1.60 (" in line and not met


@pytest.mark.parity
def test_torch_takes_steps(benchmark, monkeypatch):
    """Every parameter moves, and the bits per dimension fall."""
    nets, kind = [], benchmark.Peer

    def keep(recipe):
        nets.append(kind(recipe))
        return nets[0]

    monkeypatch.setattr(benchmark, "Peer", keep)
    config = benchmark.steps.experiment("pixelcnn_digits", SMALL)
    work = benchmark.theirs(config)
    (net,) = nets
    images = torch_images(benchmark.steps.batches(config)[0])
    before, start = [p.detach().clone() for p in net.parameters()], net.eval()(images).item()
    net.train()
    for _ in range(20):
        work()
    assert all((old != new).any() for old, new in zip(before, net.parameters(), strict=True))
    assert net.eval()(images).item() < start - 0.05
