"""U-Net's and DeepLabv3+'s training steps, and ResNet-50 and VGG-16 without gradients, beside the same in torch.

    python -m benchmarks.segmentation [--rounds=7] [--only=SUBSTRING]

Needs the extra `parity`. Batches are random. Contestants take turns in each round, each in a process of its own. Writes
the section `segmentation` of BENCHMARKS.md, with peak memory, and exits with 1 if a bar is missed; --only writes no
file. The same on a GPU: `benchmarks.gpu`.
"""

import itertools
import resource
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn
import jax
import numpy as np
import torch
from absl import app
from torch.nn import functional as F

from benchmarks import report, steps, torch_detectors, torch_segmentation
from benchmarks.detectors import ONLY, ROUNDS
from cvjax.nets.resnet import ResNet
from cvjax.nets.vgg import DEPTHS, VGG
from cvjax.ops import flops
from cvjax.precision import computing_in

BAR = 1.2  # our time by torch's
Config = Mapping[str, Any]

RANDOM = {"data.name": steps.SYNTHETIC, "data.transforms": (), "data.eval_transforms": ()}
UNET = {"recipe.shape": (100, 100, 3), "data.batch": 2}
DEEPLAB = {"recipe.shape": (129, 129, 3), "data.batch": 4, "recipe.backbone.depth": 50}
# name: (config of a training step or "", changes by dotted key, or what `network` takes)
CASES = {
    "U-Net of the paper, 100 px (284 with its margin), batch 2, training step": ("unet_pet", UNET),
    "DeepLabv3+ with ResNet-50, 129 px, batch 4, training step": ("deeplab_voc", DEEPLAB | {"precision": "float32"}),
    "ResNet-50, 224 px, batch 8, no gradients": ("", dict(system="", network="resnet", width=64, size=224, batch=8)),
    "VGG-16, 224 px, batch 4, no gradients": ("", dict(system="", network="vgg", width=64, size=224, batch=4)),
}


def experiment(name: str) -> Config:
    """The experiment of a row, or the settings of a network."""
    file, changes = CASES[name]
    return steps.experiment(file, RANDOM | changes) if file else {"precision": "float32"} | changes


# --- training steps -----------------------------------------------------------------------------------------------


def torch_network(config: Config) -> torch.nn.Module:
    """A segmenter in torch."""
    system = config["system"].rpartition(".")[2]
    return {"unet": torch_segmentation.UNet, "deeplab": torch_segmentation.DeepLab}[system](config["recipe"])


def torch_step(config: Config, device: str = "cpu", layout: steps.Layout = steps.CONTIGUOUS) -> Callable[[], None]:
    """A function that takes one training step in torch, with images and kernels in a memory layout."""
    torch.set_num_threads(steps.THREADS)
    torch.manual_seed(config["seed"])
    net, options = torch_network(config).to(device, memory_format=layout), config["recipe"]["optimiser"]
    decay = options.get("weight_decay", 0.0)
    sgd = torch.optim.SGD(net.parameters(), 1e-3, momentum=options["momentum"], weight_decay=decay, fused=True)
    placed = [
        (
            torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy()).to(device, memory_format=layout),
            torch.from_numpy(batch["class_map"]).long().to(device),
        )
        for batch in steps.batches(config)
    ]
    turn = itertools.cycle(placed)
    if device != "cpu":
        net.compile()

    def work():
        images, labels = next(turn)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            logits = net(images)
        loss = F.cross_entropy(logits.float(), labels)
        sgd.zero_grad()
        loss.backward()
        if "clip" in options:
            torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip"])
        sgd.step()
        if device != "cpu":
            torch.cuda.synchronize()

    return work


# --- networks without gradients -----------------------------------------------------------------------------------


def random_images(config: Config) -> np.ndarray:
    """A batch of random images."""
    return np.random.default_rng(0).random((config["batch"], config["size"], config["size"], 3), np.float32)


def network(config: Config) -> tuple[nn.Module, Callable]:
    """Our network, and the jitted function of its variables and images."""
    vgg = config["network"] == "vgg"
    net = VGG(16, width=config["width"]) if vgg else ResNet(50, width=config["width"])

    @jax.jit
    def apply(held, images):
        with computing_in(config["precision"]):
            outputs = net.apply(held, images)
        return outputs[0] if vgg else outputs["c5"]

    return net, apply


def our_inference(config: Config) -> Callable[[], None]:
    """A function that runs our network on a batch, jitted."""
    (net, apply), images = network(config), jax.device_put(random_images(config))
    held = jax.jit(net.init)(jax.random.key(0), images[:1])
    return lambda: jax.block_until_ready(apply(held, images))


def inference_flops(config: Config) -> float:
    """FLOPs of our network on a batch, in products and convolutions."""
    (net, apply), images = network(config), random_images(config)
    held = jax.eval_shape(net.init, jax.random.key(0), images[:1])
    return flops.count(apply.trace(held, images).jaxpr).total()


def torch_backbone(config: Config) -> torch.nn.Module:
    """The network in torch."""
    if config["network"] == "vgg":
        return torch.nn.Sequential(Standardise(), torch_segmentation.vgg(DEPTHS[16], config["width"]))
    return torch_segmentation.Features(50, config["width"])


def torch_inference(config: Config, device: str = "cpu", layout: steps.Layout = steps.CONTIGUOUS) -> Callable[[], None]:
    """A function that runs the network on a batch in torch."""
    images = torch.from_numpy(random_images(config).transpose(0, 3, 1, 2).copy()).to(device, memory_format=layout)
    return steps.without_gradients(torch_backbone(config).to(device, memory_format=layout), images)


class Standardise(torch.nn.Module):
    """Removes ImageNet's mean and deviation."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images in [0, 1] -> images of mean 0."""
        return torch_detectors.standardise(images)


# --- the table ----------------------------------------------------------------------------------------------------


def makers(config: Config, device: str = "cpu") -> dict[str, Callable]:
    """What makes our contestant of a row and torch's."""
    ours, theirs = (steps.ours, torch_step) if config["system"] else (our_inference, torch_inference)
    return {"ours": partial(ours, config), "torch": partial(theirs, config, device)}


def peak_memory(_: str) -> int:
    """The most bytes that this process has held."""
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def row(name: str, times: Mapping[str, list[float]], memory: Mapping[str, int]) -> tuple[str, bool]:
    """A line of the table, and whether the bar is met."""
    line, met = steps.row(name, BAR, times)
    return f"{line} {memory['ours'] / 2**30:.2f} / {memory['torch'] / 2**30:.2f} GiB |", met


def main(_) -> None:
    lines, missed = (
        ["| work | bar | ours / torch | ours, ms | torch, ms | memory, ours / torch |", "|" + "---|" * 6],
        [],
    )
    for name in (name for name in CASES if ONLY.value in name):
        line, met = row(name, *report.measure(makers(experiment(name)), ROUNDS.value, finish=peak_memory))
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
    header = f"""## Segmentation and backbones

`python -m benchmarks.segmentation`: CPU, {steps.THREADS} threads each, float32, random batches; torch in its default
layout. The same networks, loss and optimiser; times are medians over rounds in which both are timed in turn, ratios
medians of the rounds' ratios, with their quartiles; memory is the most that each process held.
{report.machine(["jax", "flax", "torch"])}.
"""
    if not ONLY.value:
        report.write_section("segmentation", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
