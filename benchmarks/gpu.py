"""Training steps on a GPU beside torch's, compiled, in the faster of its two memory layouts; both in bfloat16.

    python -m benchmarks.gpu [--minutes=8] [--only=SUBSTRING] [--rounds=7]

Needs the extra `parity` and a GPU that both JAX and torch see. Batches are random and stay on the device. The
contestants of a row are prepared at the same time, each in its own process, and then timed alternately. Each row is
written to the section `gpu` of BENCHMARKS.md as soon as it is measured; a row for which the time is too short is named.
Exits with 1 if a bar is missed. `--device=cpu --smoke` runs all of it at a tiny size, for the tests.
"""

import os
import sys
import time
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import numpy as np
import torch
from absl import app, flags

from benchmarks import autoregressive, detectors, report, steps

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
CASES = {
    "DCGAN of the paper, 64 px, batch 128": ("dcgan_mnist", DCGAN, TINY, *GANS),
    "YOLOv2, 416 px, batch 32": ("yolov2_voc", YOLO, TINY_YOLO, *DETECTORS),
    "RetinaNet-50, 512 px, batch 16": ("retinanet_coco", RETINANET, TINY_RETINANET, *DETECTORS),
    "SAGAN, 32 px, batch 256": ("sagan_cifar10", {}, TINY | {"recipe.width": 8}, *GANS),
    "WGAN-GP, 32 px, 5 x 64": ("wgan_gp_cifar10", {}, TINY, *GANS),
    "PixelCNN of the paper, 32 px, batch 16": ("pixelcnn_cifar10", {}, TINY_PIXELS, *PIXELS),
}
HEAD = (
    "| training step | ours / torch | ours, ms | torch, ms | its layout | peak memory, ours / torch | share of peak |"
)


def experiment(name: str, smoke: bool) -> Config:
    """Returns the experiment of a row."""
    file, changes, tiny, _, _ = CASES[name]
    return steps.experiment(file, COMMON | changes | (tiny if smoke else {}))


def contestants(name: str, config: Config, device: str) -> dict[str, Callable]:
    """Returns what makes our step and torch's, in both layouts on a GPU."""
    *_, ours, theirs = CASES[name]
    layouts = LAYOUTS if device == "cuda" else {"torch": torch.contiguous_format}
    peers = {title: partial(theirs, config, device, layout) for title, layout in layouts.items()}
    return {"ours": partial(ours, config), **peers}


def peak_memory(contestant: str) -> int:
    """Returns the most bytes of the device that this process has held; 0 on a CPU."""
    if contestant != "ours":
        return torch.cuda.max_memory_allocated() if torch.cuda.is_available() else 0
    return (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use", 0)


def step_flops(config: Config) -> float:
    """Returns the FLOPs of our training step, in products and convolutions."""
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
    header = f"""## Training steps on a GPU

`python -m benchmarks.gpu`: {where}, random batches, bfloat16 with float32 parameters; torch compiled (but the critic of
WGAN-GP, whose second derivatives it does not compile), in the faster of its two layouts, Adam fused. Bars: time and
memory at most torch's. Times are medians over {rounds} rounds in which all are timed in turn, ratios medians of the
rounds' ratios, with their quartiles; the share is that of the chip's dense bfloat16 peak.
{report.machine(["jax", "flax", "torch"])}.
"""
    report.write_section("gpu", "\n".join([header, HEAD, "|" + "---|" * 7, *lines]))


def main(_) -> None:
    if DEVICE.value == "cuda" and not (torch.cuda.is_available() and jax.default_backend() == "gpu"):
        sys.exit("JAX and torch both have to see a GPU: pip install -e '.[cuda,parity]', or --device=cpu --smoke.")
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # the contestants share the GPU's memory
    peak = next((rate for name, rate in steps.PEAKS.items() if name in jax.devices()[0].device_kind), np.nan)
    begun, longest, lines, missed = time.monotonic(), 0.0, [], []
    for name in (name for name in CASES if detectors.ONLY.value in name):
        started = time.monotonic()
        if started - begun + longest > 60 * MINUTES.value:
            lines.append(f"| {name} | not measured: no time was left |")
            print(lines[-1], flush=True)
            continue
        config = experiment(name, SMOKE.value)
        makers = contestants(name, config, DEVICE.value)
        try:
            times, memory = report.measure(makers, detectors.ROUNDS.value, at_once=True, finish=peak_memory)
        except RuntimeError as error:
            line, met = f"| {name} | not measured: {error} |", False
        else:
            share = step_flops(config) / (np.median(times["ours"]) / 1e3) / peak
            line, met = row(name, times, memory, share)
        longest = max(longest, time.monotonic() - started)
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
        if not SMOKE.value and not detectors.ONLY.value:
            write(lines, DEVICE.value)
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
