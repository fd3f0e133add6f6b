"""Autoregressive models: cached against naive sampling, and PixelCNN's training step against torch.

    python -m benchmarks.autoregressive

Needs the extra `parity`. Both samplers are one compiled loop over pixels and channels and draw the same levels. The
training step is compared with the same network, loss, Adam and average in torch, on preloaded batches. Contestants are
timed alternately; a ratio is the median over the rounds. Writes the section `autoregressive` of BENCHMARKS.md, and
exits with 1 if a bar is missed.
"""

import itertools
import math
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen
import jax
import numpy as np
import torch
from absl import app
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks import report, steps
from cvjax.generative.autoregressive import pixel_model
from cvjax.generative.autoregressive.gated_pixelcnn import GatedPixelCNN
from cvjax.generative.autoregressive.masked import kernel_mask
from cvjax.generative.autoregressive.pixelcnn import PixelCNN
from cvjax.generative.autoregressive.pixelrnn import PixelRNN

IMAGES = 64
ROUNDS = 15
NETS = {
    "generative.autoregressive.pixelcnn": PixelCNN,
    "generative.autoregressive.gated_pixelcnn": GatedPixelCNN,
    "generative.autoregressive.pixelrnn": PixelRNN,
}
# name: (bar on naive / cached, config, changes, rounds)
SAMPLED = {
    "PixelCNN, configs/pixelcnn_digits.py": (5.0, "pixelcnn_digits", {}, ROUNDS),
    "Gated PixelCNN, configs/gated_pixelcnn_digits.py": (5.0, "gated_pixelcnn_digits", {}, ROUNDS),
    "Row LSTM, configs/pixelrnn_digits.py": (5.0, "pixelrnn_digits", {}, ROUNDS),
}
PAPER = {f"recipe.architecture.{name}": size for name, size in {"layers": 15, "width": 128, "head": 1024}.items()}
PAPER |= {"recipe.shape": (32, 32, 3), "recipe.levels": 256, "data.name": "photos/32", "data.batch": 16}
# name: (bar on our time / torch's, config, changes, rounds)
TRAINED = {
    "PixelCNN, configs/pixelcnn_digits.py": (1.5, "pixelcnn_digits", {}, ROUNDS),
    "PixelCNN of the paper, 32 px, batch 16": (1.2, "pixelcnn_digits", PAPER, 3),
}


# Sampling.


def network(config: Mapping[str, Any]) -> flax.linen.Module:
    """Returns the network of an experiment."""
    kind, recipe = NETS[config["system"]], config["recipe"]
    options = {} if kind is PixelCNN else {"channels": recipe["shape"][2]}
    return kind(recipe["levels"], recipe["classes"], **recipe["architecture"], **options)


def sampler(config: Mapping[str, Any], cached: bool, images: int = IMAGES) -> Callable[[], jax.Array]:
    """Returns a function that draws new images from a network with random parameters at every call."""
    net, empty = network(config), jax.numpy.zeros((images, *config["recipe"]["shape"]))
    params = jax.jit(net.init)(jax.random.key(config["seed"]), empty[:1])["params"]
    naive = partial(pixel_model.sample_naively, apply=lambda x: net.apply({"params": params}, x), images=empty)
    draw = jax.jit(partial(pixel_model.sample, net=net, params=params, images=empty) if cached else naive)
    keys = (jax.random.key(index) for index in itertools.count())
    return lambda: jax.block_until_ready(draw(next(keys)))


def sampling_row(name: str) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met."""
    bar, file, changes, rounds = SAMPLED[name]
    config = steps.experiment(file, changes)
    times = report.interleave(
        {kind: partial(sampler, config, kind == "cached") for kind in ("naive", "cached")}, rounds
    )
    low, middle, high = report.ratio(times["naive"], times["cached"])
    naive, cached = (np.median(times[kind]) for kind in ("naive", "cached"))
    return f"| {name} | >= {bar} | {middle:.1f} ({low:.1f} to {high:.1f}) | {naive:.1f} | {cached:.1f} |", middle >= bar


# The same network in torch.


class Masked(nn.Conv2d):
    """A masked convolution, cropped like ours to the kernel rows that are not masked."""

    def __init__(self, inputs: int, features: int, kernel: int, mask: str, channels: int):
        super().__init__(inputs, features, (kernel // 2 + 1, kernel))
        allowed = kernel_mask((kernel // 2 + 1, kernel, inputs, features), channels, mask)
        self.all = allowed.all()
        self.register_buffer("mask", torch.from_numpy(allowed.transpose(3, 2, 0, 1).copy()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Pads above and on both sides if the kernel is larger than a pixel."""
        if self.all:
            return F.conv2d(x, self.weight, self.bias)
        above, side = self.mask.shape[2] - 1, self.mask.shape[3] // 2
        return F.conv2d(F.pad(x, (side, side, above, 0)), self.weight * self.mask, self.bias)


class Block(nn.Module):
    """PyTorch version of `cvjax.generative.autoregressive.pixelcnn.ResidualBlock`."""

    def __init__(self, width: int, kernel: int, channels: int, dropout: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.ReLU(),
            Masked(2 * width, width, 1, "B", channels),
            nn.ReLU(),
            Masked(width, width, kernel, "B", channels),
            nn.ReLU(),
            nn.Dropout(dropout),
            Masked(width, 2 * width, 1, "B", channels),
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the block."""
        return x + self.layers(x)


class Peer(nn.Module):
    """PyTorch version of `cvjax.generative.autoregressive.pixelcnn.PixelCNN`, with its loss."""

    def __init__(self, recipe: Mapping[str, Any]):
        super().__init__()
        sizes, channels, self.levels = recipe["architecture"], recipe["shape"][2], recipe["levels"]
        width, head, kernel, dropout = (sizes[name] for name in ("width", "head", "kernel", "dropout"))
        self.net = nn.Sequential(
            Masked(channels, 2 * width, sizes["first_kernel"], "A", channels),
            *(Block(width, kernel, channels, dropout) for _ in range(sizes["layers"])),
            nn.ReLU(),
            Masked(2 * width, head, 1, "B", channels),
            nn.ReLU(),
            Masked(head, channels * self.levels, 1, "B", channels),
        )

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns bits per dimension, averaged over the batch."""
        index = torch.round(images * (self.levels - 1))
        logits = self.net(2 * index / (self.levels - 1) - 1).unflatten(1, (-1, self.levels)).transpose(1, 2)
        return F.cross_entropy(logits, index.long()) / math.log(2)


def theirs(
    config: Mapping[str, Any], device: str = "cpu", layout: steps.Layout = steps.CONTIGUOUS
) -> Callable[[], None]:
    """Returns a function that takes one training step in torch (fused Adam), with images in a memory layout."""
    torch.set_num_threads(steps.THREADS)
    torch.manual_seed(config["seed"])
    net = Peer(config["recipe"]).to(device, memory_format=layout)
    adam = torch.optim.Adam(net.parameters(), config["recipe"]["optimiser"]["learning_rate"], fused=True)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(config["recipe"]["ema"]))
    images = (torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy()) for batch in steps.batches(config))
    turn = itertools.cycle([rows.to(device, memory_format=layout) for rows in images])
    if device != "cpu":
        net.compile()

    def work():
        adam.zero_grad()
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            loss = net(next(turn))
        loss.backward()
        adam.step()
        average.update_parameters(net)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def training_row(name: str) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met."""
    bar, file, changes, rounds = TRAINED[name]
    config = steps.experiment(file, changes)
    times = report.interleave({"ours": partial(steps.ours, config), "torch": partial(theirs, config)}, rounds)
    return steps.row(name, bar, times)


def main(_) -> None:
    tables = {
        "| 64 images drawn | bar | naive / cached | naive, ms | cached, ms |": (sampling_row, SAMPLED),
        "| training step | bar | ours / torch | ours, ms | torch, ms |": (training_row, TRAINED),
    }
    lines, missed = [], []
    for head, (row, names) in tables.items():
        lines += [head, "|" + "---|" * 5]
        for name in names:
            line, met = row(name)
            lines.append(line)
            print(line, flush=True)
            missed += [] if met else [name]
        lines.append("")
    header = f"""## Autoregressive models

`python -m benchmarks.autoregressive`: CPU, {steps.THREADS} threads each, float32. Sampling with cached activations
beside sampling from whole images, which draws the same levels; training beside the same network, loss, average and Adam
in torch, in its default layout, Adam fused. Times are medians over rounds in which both are timed in turn, ratios
medians of the rounds' ratios, with their quartiles. {report.machine(["jax", "flax", "torch"])}.
"""
    report.write_section("autoregressive", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
