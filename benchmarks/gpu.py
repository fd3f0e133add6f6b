"""Networks on a GPU beside torch's, compiled, in the faster of its two memory layouts; both in bfloat16.

    python -m benchmarks.gpu [--minutes=8] [--only=SUBSTRING] [--rounds=7]

Needs the extra `parity` and a GPU that both JAX and torch see. Batches are random and stay on the device. The
contestants of two rows are prepared at the same time, each in its own process, and then timed alternately. Rows are
written to the section `gpu` of BENCHMARKS.md as soon as they are measured; those for which the time is short are named.
Exits with 1 if a bar is missed. `--device=cpu --smoke` runs all of it at a tiny size, for the tests.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent import futures
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from absl import app, flags

from benchmarks import autoregressive, detectors, report, segmentation, steps

MINUTES = flags.DEFINE_float("minutes", 8.0, "Time for all rows.")
DEVICE = flags.DEFINE_enum("device", "cuda", ["cuda", "cpu"], "Where torch computes.")
SMOKE = flags.DEFINE_bool("smoke", False, "Tiny networks and images.")
BAR = 1.0  # our time by torch's, and our memory by torch's
LAYOUTS = {"torch": torch.contiguous_format, "torch, channels last": torch.channels_last}
COMMON = {"data.name": steps.SYNTHETIC, "data.transforms": (), "data.eval_transforms": (), "precision": "bfloat16"}
YOLO = {"recipe.classes": 20, "recipe.sizes": (), "data.batch": 32, "data.max_boxes": 16}
RETINANET = {"recipe.classes": 80, "recipe.shape": (512, 512, 3), "data.max_boxes": 16}
Config = Mapping[str, Any]

# name: (config, changes, further changes for --smoke, our step, torch's step)
GANS = steps.ours, steps.theirs
DETECTORS = detectors.our_step, detectors.torch_step
PIXELS = steps.ours, autoregressive.theirs
DCGAN = {"recipe.shape": (64, 64, 3), "recipe.width": 128, "data.batch": 128}
TINY = {"recipe.width": 4, "data.batch": 10}
TINY_YOLO = {"recipe.shape": (64, 64, 3), "recipe.stages": (1,) * 6, "recipe.width": 2, "data.batch": 2}
TINY_RETINANET = {"recipe.shape": (64, 64, 3), "recipe.depth": 18, "recipe.width": 2, "recipe.channels": 8}
TINY_RETINANET |= {"recipe.subnet_depth": 1, "data.batch": 2}
TINY_PIXELS = {"recipe.shape": (8, 8, 3), "recipe.architecture.layers": 1, "recipe.architecture.width": 6}
TINY_PIXELS |= {"recipe.architecture.head": 9, "data.batch": 2}
SEGMENTERS = steps.ours, segmentation.torch_step
TINY_UNET = {"recipe.shape": (20, 20, 3), "recipe.depth": 1, "recipe.width": 2, "data.batch": 2}
DEEPLAB = {"recipe.backbone.depth": 50}
TINY_DEEPLAB = {"recipe.shape": (33, 33, 3), "recipe.backbone.depth": 18, "recipe.backbone.width": 2}
TINY_DEEPLAB |= {"recipe.features": 4, "recipe.low_features": 2, "data.batch": 2}
NETWORKS = segmentation.our_inference, segmentation.torch_inference
RESNET = dict(system="", precision="bfloat16", network="resnet", width=64, size=224, batch=64)
VGG = RESNET | dict(network="vgg")
TINY_NETWORK = dict(width=2, size=32, batch=2)
CASES = {
    "DCGAN of the paper, 64 px, batch 128": ("dcgan_mnist", DCGAN, TINY, *GANS),
    "YOLOv2, 416 px, batch 32": ("yolov2_voc", YOLO, TINY_YOLO, *DETECTORS),
    "U-Net of the paper, 388 px (572 with its margin), batch 8": ("unet_pet", {}, TINY_UNET, *SEGMENTERS),
    "WGAN-GP, 32 px, 5 x 64": ("wgan_gp_cifar10", {}, TINY, *GANS),
    "DeepLabv3+ with ResNet-50, 513 px, batch 16": ("deeplab_voc", DEEPLAB, TINY_DEEPLAB, *SEGMENTERS),
    "SAGAN, 32 px, batch 256": ("sagan_cifar10", {}, TINY | {"recipe.width": 8}, *GANS),
    "RetinaNet-50, 512 px, batch 16": ("retinanet_coco", RETINANET, TINY_RETINANET, *DETECTORS),
    "PixelCNN of the paper, 32 px, batch 16": ("pixelcnn_cifar10", {}, TINY_PIXELS, *PIXELS),
    "ResNet-50, 224 px, batch 64, no gradients": ("", RESNET, TINY_NETWORK, *NETWORKS),
    "VGG-16, 224 px, batch 64, no gradients": ("", VGG, TINY_NETWORK, *NETWORKS),
}
TOGETHER = 2  # rows that are prepared at the same time
HEAD = "| work | ours / torch | ours, ms | torch, ms | its layout | peak memory, ours / torch | share of peak |"


def experiment(name: str, smoke: bool) -> Config:
    """Returns the experiment of a row, or the settings of `segmentation.network`."""
    file, changes, tiny, _, _ = CASES[name]
    changes = changes | (tiny if smoke else {})
    return steps.experiment(file, COMMON | changes) if file else changes


def contestants(name: str, config: Config, device: str) -> dict[str, Callable]:
    """Returns what makes our step and torch's, in both layouts on a GPU."""
    *_, ours, theirs = CASES[name]
    layouts = LAYOUTS if device == "cuda" else {"torch": torch.contiguous_format}
    peers = {title: partial(theirs, config, device, layout) for title, layout in layouts.items()}
    return {"ours": partial(ours, config), **peers}


def peak_memory(contestant: tuple[str, str]) -> int:
    """Returns the most bytes of the device that this process, of (row, contestant), has held; 0 on a CPU."""
    if contestant[1] != "ours":
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def count_flops(config: Config) -> float:
    """Returns the FLOPs of our training step or network, in products and convolutions."""
    if not config["system"]:
        return segmentation.inference_flops(config)
    return (detectors if config["system"].startswith("detection.") else steps).step_flops(config)


def row(name: str, times: Mapping[str, list[float]], memory: Mapping[str, int], share: float) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met.

    Args:
      name: of the row.
      times: milliseconds per step in each round, by contestant.
      memory: peak bytes, by contestant.
      share: of the chip's peak that our step reaches.
    """
    best = min((contestant for contestant in times if contestant != "ours"), key=lambda peer: np.median(times[peer]))
    low, middle, high = report.ratio(times["ours"], times[best])
    ours, theirs = (f"{np.median(times[who]):.2f}" for who in ("ours", best))
    layout = "channels last" if best in LAYOUTS and LAYOUTS[best] is torch.channels_last else "default"
    held = f"{memory['ours'] / 2**30:.2f} / {memory[best] / 2**30:.2f} GiB"
    cells = [name, f"{middle:.2f} ({low:.2f} to {high:.2f})", ours, theirs, layout, held, f"{share:.0%}"]
    return f"| {' | '.join(cells)} |", middle <= BAR and memory["ours"] <= BAR * max(memory[best], 1)


def write(lines: list[str], device: str) -> None:
    """Writes the rows so far into BENCHMARKS.md."""
    where = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    rounds = detectors.ROUNDS.value
    header = f"""## On a GPU

`python -m benchmarks.gpu`: training steps unless without gradients; {where}, random batches, bfloat16 with float32
parameters; torch compiled (but the critic of WGAN-GP, whose second derivatives it does not compile), in the faster of
its two layouts, optimisers fused. Bars: time and memory at most torch's. Times are medians over {rounds} rounds in
which all are timed in turn, ratios medians of the rounds' ratios, with their quartiles; the share is that of the chip's
dense bfloat16 peak.
{report.machine(["jax", "flax", "torch"])}.
"""
    report.write_section("gpu", "\n".join([header, HEAD, "|" + "---|" * 7, *lines]))


def measure(names: Sequence[str], peak: float) -> dict[str, tuple[str, bool]]:
    """Measures rows whose contestants are prepared at the same time; one that cannot be is measured by itself.

    Args:
      names: of the rows.
      peak: FLOP/s of the chip.

    Returns:
      {name: (line of the table, whether the bar is met)}.
    """
    configs = {name: experiment(name, SMOKE.value) for name in names}
    makers = {
        (name, who): make
        for name, config in configs.items()
        for who, make in contestants(name, config, DEVICE.value).items()
    }
    with futures.ThreadPoolExecutor(1) as pool:  # counts while the contestants are prepared
        counts = {name: pool.submit(count_flops, config) for name, config in configs.items()}
        try:
            found = report.measure(makers, detectors.ROUNDS.value, at_once=True, finish=peak_memory)
        except RuntimeError as error:
            if len(names) == 1:
                return {names[0]: (f"| {names[0]} | not measured: {error} |", False)}
            return {name: line for one in names for name, line in measure([one], peak).items()}
    rows = {}
    for name in names:
        times, memory = ({who: values for (row, who), values in kept.items() if row == name} for kept in found)
        rows[name] = row(name, times, memory, counts[name].result() / (np.median(times["ours"]) / 1e3) / peak)
    return rows


def main(_) -> None:
    if DEVICE.value == "cuda" and not (torch.cuda.is_available() and jax.default_backend() == "gpu"):
        sys.exit("JAX and torch both have to see a GPU: pip install -e '.[cuda,parity]', or --device=cpu --smoke.")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the contestants share the GPU's memory
    peak = next((rate for name, rate in steps.PEAKS.items() if name in jax.devices()[0].device_kind), np.nan)
    begun, longest, lines, missed = time.monotonic(), 0.0, [], []
    names = [name for name in CASES if detectors.ONLY.value in name]
    for group in (names[first : first + TOGETHER] for first in range(0, len(names), TOGETHER)):
        started = time.monotonic()
        if started - begun + longest > 60 * MINUTES.value:
            found = {name: (f"| {name} | not measured: no time was left |", True) for name in group}
        else:
            found = measure(group, peak)
        longest = max(longest, time.monotonic() - started)
        for name, (line, met) in found.items():
            lines.append(line)
            print(line, flush=True)
            missed += [] if met else [name]
        if not SMOKE.value and not detectors.ONLY.value:
            write(lines, DEVICE.value)
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
