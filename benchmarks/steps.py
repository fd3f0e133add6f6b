"""Training steps: each recipe against the same networks, losses and Adam in torch.

    python -m benchmarks.steps

Needs the extra `parity`. Both use real, preloaded batches and draw their own noise. They are timed alternately; a ratio
is the median over the rounds. Writes the section `steps` of BENCHMARKS.md, and exits with 1 if a bar is missed. If JAX
and torch both see a GPU, both compute in bfloat16, torch's networks are compiled, and our share of the chip's peak is
added; that path is untested.
"""

import itertools
import os
import pathlib
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from absl import app
from torch import nn
from torch.nn import functional as F

from benchmarks import report, torch_gans
from cvjax import config as experiments
from cvjax import data
from cvjax.compiled import compile_traced
from cvjax.ops import flops

CONFIGS = pathlib.Path(__file__).resolve().parent.parent / "configs"
ROUNDS = 15
THREADS = len(os.sched_getaffinity(0))
PLACED = 8  # number of preloaded batches
SYNTHETIC = "synthetic"  # in the place of a dataset's name: random batches
PEAKS = {
    "H200": 989e12,
    "H100": 989e12,
    "A100": 312e12,
    "L4": 121e12,
    "T4": 65e12,
}  # dense bfloat16 (T4: float16) FLOP/s
PAPER = {"recipe.shape": (64, 64, 3), "recipe.width": 128, "data.name": "photos/64", "data.batch": 32}
PAPER |= {"data.transforms": (), "data.eval_transforms": ()}
# name: (bar on our time / torch's, config, changes, rounds)
CASES = {
    "VAE, configs/vae_digits.py": (1.0, "vae_digits", {}, ROUNDS),
    "DCGAN, configs/dcgan_digits.py": (1.5, "dcgan_digits", {}, ROUNDS),
    "DCGAN of the paper, 64 px, batch 32": (1.1, "dcgan_mnist", PAPER, 3),
    "WGAN-GP, configs/wgan_gp_digits.py": (1.5, "wgan_gp_digits", {}, ROUNDS),
    "SAGAN, configs/sagan_digits.py": (1.5, "sagan_digits", {}, ROUNDS),
}
GPU_BAR = 1.0
Layout = torch.memory_format
CONTIGUOUS = torch.contiguous_format


def experiment(name: str, changes: Mapping[str, Any]) -> dict[str, Any]:
    """Returns an experiment of configs/ as plain dicts, with changes by dotted key."""
    config = experiments.load(f"{CONFIGS / name}.py")
    with config.ignore_type():  # a number of classes in the place of their names
        config.update_from_flattened_dict(changes)
    return experiments.as_dict(config)


def batches(config: Mapping[str, Any]) -> list[dict[str, np.ndarray]]:
    """Returns the first images (and labels) of an experiment's training stream."""
    if config["data"]["name"] == SYNTHETIC:
        return [synthetic(config, seed) for seed in range(2)]
    stream = data.load(config["data"], seed=config["seed"]).train()
    return [{k: batch[k] for k in ("image", "label") if k in batch} for batch in itertools.islice(stream, PLACED)]


def synthetic(config: Mapping[str, Any], seed: int) -> dict[str, np.ndarray]:
    """Returns a batch of random images with labels, boxes or maps of classes, of the shapes of an experiment."""
    generator, recipe, rows = np.random.default_rng(seed), config["recipe"], config["data"]["batch"]
    batch = {"image": generator.random((rows, *recipe["shape"]), np.float32)}
    most, classes = config["data"]["max_boxes"], recipe.get("classes")
    if config["data"]["class_maps"]:
        maps = (rows, *recipe["shape"][:2])
        return batch | {name: generator.integers(0, classes, maps, np.int32) for name in config["data"]["class_maps"]}
    if most is None:
        return batch | ({} if classes is None else {"label": generator.integers(0, classes, rows).astype(np.int32)})
    size = np.array(recipe["shape"][1::-1], np.float32)
    corner, extent = generator.uniform(0, 0.7, (2, rows, most, 2))
    boxes = np.concatenate([corner, np.minimum(corner + extent + 0.05, 1)], axis=-1) * np.tile(size, 2)
    mask = np.arange(most) < generator.integers(1, most + 1, (rows, 1))
    labels = generator.integers(0, classes, mask.shape).astype(np.int32) * mask
    nothing = np.zeros_like(mask)
    boxes = (boxes * mask[..., None]).astype(np.float32)
    return {**batch, "boxes": boxes, "labels": labels, "mask": mask, "difficult": nothing, "crowd": nothing}


# Ours.


def ours(config: Mapping[str, Any]) -> Callable[[], None]:
    """Returns a function that takes one training step of the recipe, jitted, with a donated state."""
    placed = [jax.device_put(batch) for batch in batches(config)]
    step, state = begin(config, placed[0])
    turn = itertools.cycle(placed)

    def work():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, next(turn)))

    return work


def step_flops(config: Mapping[str, Any]) -> float:
    """Returns the FLOPs of our training step, in products and convolutions."""
    recipe, key, batch = experiments.build(config), jax.random.key(0), batches(config)[0]
    state = jax.eval_shape(recipe.init, key, batch)
    return flops.count(jax.jit(recipe.train_step).trace(state, batch, key).jaxpr).total()


def begin(config: Mapping[str, Any], batch: Mapping[str, jax.Array]) -> tuple[Callable, Any]:
    """Returns the recipe's training step, compiled as in a run, with a donated state, and the first state."""
    recipe, key = experiments.build(config), jax.random.key(config["seed"])
    step = jax.jit(
        lambda state, batch: recipe.train_step(state, batch, jax.random.fold_in(key, state.step)), donate_argnums=0
    )
    state = jax.jit(recipe.init)(key, batch)
    return compile_traced(step.trace(state, batch)), state


# The same in torch, with default layout and fused Adam.


class Vae(nn.Module):
    """PyTorch version of `cvjax.generative.autoencoders.vae`: dense, with a categorical likelihood."""

    def __init__(self, shape, latent, hidden, dropout, levels):
        super().__init__()
        size, (width,) = int(np.prod(shape)), hidden
        self.levels = levels
        self.encoder = nn.Sequential(nn.Flatten(), nn.Linear(size, width), nn.Tanh(), nn.Dropout(dropout))
        self.mean, self.log_variance = nn.Linear(width, latent), nn.Linear(width, latent)
        self.decoder = nn.Sequential(
            nn.Linear(latent, width), nn.Tanh(), nn.Dropout(dropout), nn.Linear(width, size * levels)
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns the negative bound in nats, averaged over the batch."""
        hidden = self.encoder(2 * images - 1)
        mean, log_variance = self.mean(hidden), self.log_variance(hidden)
        z = mean + torch.exp(log_variance / 2) * torch.randn_like(mean)
        grey = torch.round(images * (self.levels - 1)).long().flatten()
        nats = F.cross_entropy(self.decoder(z).view(-1, self.levels), grey, reduction="sum")
        divergence = 0.5 * (torch.exp(log_variance) + mean**2 - 1 - log_variance).sum()
        return (nats + divergence) / len(images)


def torch_networks(config: Mapping[str, Any]) -> dict[str, nn.Module]:
    """Returns an experiment's networks in torch, named as in the state."""
    recipe = config["recipe"]
    if config["system"] == "generative.autoencoders.vae":
        return {"vae": Vae(**{key: recipe[key] for key in ("shape", "latent", "hidden", "dropout", "levels")})}
    if config["system"] == "generative.gans.sagan":
        generator, discriminator = torch_gans.sagan(recipe)
    else:
        generator, discriminator = torch_gans.dcgan(recipe, normalise=config["system"] == "generative.gans.gan")
    return {"generator": generator, "discriminator": discriminator}


def theirs(config: Mapping[str, Any], device: str = "cpu", layout: Layout = CONTIGUOUS) -> Callable[[], None]:
    """Returns a function that takes one training step in torch, with images and kernels in a memory layout."""
    torch.set_num_threads(THREADS)
    torch.manual_seed(config["seed"])
    nets = {name: net.to(device, memory_format=layout) for name, net in torch_networks(config).items()}
    placed = [
        [torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy()).to(device, memory_format=layout)]
        + [torch.from_numpy(batch["label"]).long().to(device) for _ in range("label" in batch)]
        for batch in batches(config)
    ]
    step = _torch_vae(config, nets["vae"]) if "vae" in nets else torch_gans.stepper(config, **nets)
    turn = itertools.cycle(placed)
    if device == "cpu":
        return lambda: step(*next(turn))
    for name, net in nets.items():
        if config["system"] != "generative.gans.wgan" or name == "generator":  # no second derivatives otherwise
            net.compile()

    def work():
        with torch.autocast(device, torch.bfloat16):
            step(*next(turn))
        torch.cuda.synchronize()

    return work


def without_gradients(net: nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Returns a function that runs a network on images of its device; compiled, in bfloat16, if that is a GPU."""
    torch.set_num_threads(THREADS)
    device = images.device.type
    net.eval()
    if device != "cpu":
        net.compile()

    def work():
        with torch.inference_mode(), torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            net(images)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def _torch_vae(config: Mapping[str, Any], vae: nn.Module) -> Callable[..., None]:
    adam = torch_gans.adam(vae, config["recipe"]["optimiser"])

    def step(images, labels=None):
        adam.zero_grad()
        vae(images).backward()
        adam.step()

    return step


# The table.


def compare(config: Mapping[str, Any], rounds: int, device: str = "cpu") -> dict[str, list[float]]:
    """Returns milliseconds per step of `ours` and `torch`, by round."""
    makers = {"ours": partial(ours, config), "torch": partial(theirs, config, device)}
    return report.interleave(makers, rounds)


def row(name: str, bar: float, times: Mapping[str, list[float]], rate: float | None = None) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met; `rate` is the seconds per step at the chip's peak."""
    low, middle, high = report.ratio(times["ours"], times["torch"])
    ours, theirs = (np.median(times[who]) for who in ("ours", "torch"))
    share = "" if rate is None else f" {1e3 * rate / ours:.0%} |"
    line = f"| {name} | <= {bar} | {middle:.2f} ({low:.2f} to {high:.2f}) | {ours:.2f} | {theirs:.2f} |{share}"
    return line, middle <= bar


def main(_) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # three processes and two libraries share the GPU's memory
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    lines = ["| training step | bar | ours / torch | ours, ms | torch, ms |" + " share of peak |" * gpu]
    lines.append("|" + "---|" * (5 + gpu))
    peak = next((peak for name, peak in PEAKS.items() if name in jax.devices()[0].device_kind), None)
    missed = []
    for name, (bar, file, changes, rounds) in CASES.items():
        config = experiment(file, changes | ({"precision": "bfloat16"} if gpu else {}))
        times = compare(config, rounds, "cuda" if gpu else "cpu")
        rate = (step_flops(config) / peak if peak else np.nan) if gpu else None
        line, met = row(name, GPU_BAR if gpu else bar, times, rate)
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
    where = torch.cuda.get_device_name() if gpu else f"CPU, {THREADS} threads each"
    how = "torch compiled, bfloat16" if gpu else "float32; torch in its default layout, Adam fused"
    header = f"""## Training steps beside torch's

`python -m benchmarks.steps`: {where}, {how}. The same networks, losses, averages and Adam; times are medians over
rounds in which both are timed in turn, ratios medians of the rounds' ratios, with their quartiles.
{report.machine(["jax", "flax", "torch"])}.
"""
    report.write_section("steps", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
