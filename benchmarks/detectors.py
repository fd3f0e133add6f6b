"""Accuracy, speed and FLOPs of all detectors; YOLOv2 and RetinaNet compared with the same networks in torch.

    python -m benchmarks.detectors [--rounds=7] [--only=SUBSTRING]

Needs the extra `parity`. Frames are timed by `predict`, suppression included, with the weights of `runs/CONFIG` if that
run exists, else with initial weights; accuracies are from RESULTS.md. Contestants take turns in each round. Writes the
section `detectors` of BENCHMARKS.md, and exits with 1 if a bar is missed. --only selects comparisons with torch, and
writes no file. On a GPU that torch sees as well, torch's networks are compiled, both run in bfloat16, and our share of
the chip's peak is added; this has not been tested.
"""

import contextlib
import itertools
import os
import re
import sys
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app, flags
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from benchmarks import report, torch_detectors
from benchmarks.steps import (
    CONFIGS,
    CONTIGUOUS,
    PEAKS,
    SYNTHETIC,
    THREADS,
    Layout,
    begin,
    experiment,
    synthetic,
    without_gradients,
)
from cvjax import config as experiments
from cvjax import data, runs
from cvjax.core import variables
from cvjax.detection import retinanet
from cvjax.detection.sliding_window import window_boxes
from cvjax.nets.resnet import stage_strides
from cvjax.ops import convolution, flops

ROUNDS = flags.DEFINE_integer("rounds", 7, "How often each contestant is timed.")
ONLY = flags.DEFINE_string("only", "", "Run the comparisons whose title contains this; write no file.")
ROOT = CONFIGS.parent
BARS, GPU_BAR = {"training step": 1.1, "network, no gradients": 1.5}, 1.0  # our time by torch's
BATCH, PLACED = 16, 4  # frames at a time; batches on the device, used in turn
TIMED = 128  # largest images, in pixels, that are timed; others need a GPU
Config = Mapping[str, Any]
# Those that start from images alone and detect by one program; `cvjax.programs.frames` times the others as well.
SYSTEMS = ("sliding_window", "yolo", "yolov2", "yolo9000", "retinanet", "faster_rcnn")
SYSTEMS = tuple(f"detection.{name}" for name in SYSTEMS)


def detectors() -> dict[str, Config]:
    """The experiments of all detectors' configs, by name, and sliding windows by crops."""
    found = {path.stem: experiment(path.stem, {}) for path in sorted(CONFIGS.glob("*.py"))}
    found = {name: config for name, config in found.items() if config["system"] in SYSTEMS}
    if "yolo_voc" in found:
        changes = {"recipe.layers": "fast", "recipe.bottleneck": 256}
        found["yolo_voc:fast"] = experiment("yolo_voc", changes)
    for name in [name for name, config in found.items() if "convolutional" in config["recipe"]]:
        found[f"{name}, by crops"] = experiment(name, {"recipe.convolutional": False})
    return found


def batches(config: Config) -> list[dict[str, np.ndarray]]:
    """The first training batches of an experiment."""
    if config["data"]["name"] == SYNTHETIC:
        return [synthetic(config, seed) for seed in range(2)]
    stream = data.load(config["data"], seed=config["seed"]).train()
    return list(itertools.islice(stream, PLACED))


# --- frames -------------------------------------------------------------------------------------------------------


def abstract(config: Config) -> Any:
    """The shapes of an experiment's state."""
    image = jax.ShapeDtypeStruct((1, *config["recipe"]["shape"]), np.float32)
    return jax.eval_shape(experiments.build(config).init, jax.random.key(0), {"image": image})


def parameters(config: Config) -> int:
    """The number of parameters of an experiment."""
    return sum(leaf.size for leaf in jax.tree.leaves(abstract(config).params))


def frame_flops(config: Config) -> float:
    """FLOPs of a frame, in products and convolutions."""
    image = jax.ShapeDtypeStruct((1, *config["recipe"]["shape"]), np.float32)
    predict = jax.jit(experiments.build(config).predict)
    traced = predict.trace(abstract(config), {"image": image}, jax.random.key(0))
    return flops.count(traced.jaxpr).total()


def frames(name: str, config: Config, batch: int) -> Callable[[], None]:
    """A function that detects the objects in a batch of an experiment's images."""
    recipe, run = experiments.build(config), ROOT / "runs" / name.split(",")[0]
    images = np.concatenate([rows["image"] for rows in batches(config)])[:batch]
    if (run / "checkpoints").exists():
        state = runs.load(run)[2]
    else:
        state = jax.jit(recipe.init)(jax.random.key(config["seed"]), {"image": images})
    state = state.replace(opt={})  # not needed, and often twice as large as the parameters
    predict, images, key = jax.jit(recipe.predict), jax.device_put(images), jax.random.key(0)
    return lambda: jax.block_until_ready(predict(state, {"image": images}, key))


def accuracies(name: str) -> str:
    """Minimum and maximum VOC07 mAP of a config in RESULTS.md."""
    rows = re.findall(rf"^\| {name} \|.*\bmap_voc07 ([\d.]+)", (ROOT / "RESULTS.md").read_text(), re.MULTILINE)
    if not rows:
        return ""
    least, greatest = (f"{pick(map(float, rows)):.3f}" for pick in (min, max))
    return least if least == greatest else f"{least} to {greatest}"


def frame_lines(rounds: int) -> list[str]:
    """The table of all detectors."""
    found = detectors()
    small = {name: config for name, config in found.items() if max(config["recipe"]["shape"]) <= TIMED}
    times = {}
    for batch in (1, BATCH):
        makers = {name: partial(frames, name, config, batch) for name, config in small.items()}
        times[batch] = {name: np.median(rows) for name, rows in report.interleave(makers, rounds).items()}
    lines = ["| config | VOC07 mAP | pixels | parameters | GFLOP a frame | ms a frame | frames/s, one by one | "]
    lines[0] += f"frames/s, {BATCH} at a time | windows/s |"
    lines.append("|" + "---|" * 9)
    for name, config in found.items():
        cells = [name, accuracies(name.split(",")[0]), "x".join(map(str, config["recipe"]["shape"][:2]))]
        cells += [f"{parameters(config):,}", f"{frame_flops(config) / 1e9:.3f}"]
        if name in small:
            alone, rate = times[1][name], 1e3 * BATCH / times[BATCH][name]
            windows = f"{rate * count_windows(config):,.0f}" if "convolutional" in config["recipe"] else ""
            cells += [f"{alone:.1f}", f"{1e3 / alone:.0f}", f"{rate:.0f}", windows]
        lines.append(f"| {' | '.join(cells + [''] * (9 - len(cells)))} |")
    return lines


def count_windows(config: Config) -> int:
    """The number of windows of an image."""
    recipe = config["recipe"]
    grids = window_boxes(recipe["shape"][:2], recipe["sizes"], recipe["window"] - 4)
    return sum(grid[..., 0].size for grid in grids)


# --- beside torch -------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def bare_convolutions() -> Iterator[None]:
    """Replaces our convolutions by XLA's."""

    def conv(x, kernel, *, stride, padding, dilation, groups, precision):
        assert isinstance(padding, int) and dilation == groups == 1  # these networks have no other
        pads, axes = [(padding, padding)] * 2, ("NHWC", "HWIO", "NHWC")
        return jax.lax.conv_general_dilated(
            x, kernel, (stride, stride), pads, dimension_numbers=axes, precision=precision
        )

    ours, convolution.conv = convolution.conv, conv
    try:
        yield
    finally:
        convolution.conv = ours


def our_step(config: Config, bare: bool = False) -> Callable[[], None]:
    """A function that takes one training step of the recipe, jitted, its state donated."""
    placed = [jax.device_put(batch) for batch in batches(config)]
    with bare_convolutions() if bare else contextlib.nullcontext():
        step, state = begin(config, placed[0])
    turn = itertools.cycle(placed)

    def work():
        nonlocal state
        state, _ = jax.block_until_ready(step(state, next(turn)))

    return work


def our_network(config: Config) -> tuple[Callable, Any]:
    """A detector's network, (variables, images) -> outputs, and its variables by network."""
    recipe, image = experiments.build(config), jnp.zeros((1, *config["recipe"]["shape"]))
    state = jax.jit(recipe.init)(jax.random.key(config["seed"]), {"image": image})
    nets = recipe.networks

    def apply(networks, images):
        if "detector" in nets:
            return nets["detector"].apply(networks["detector"], images)
        stages = nets["resnet"].apply(networks["resnet"], images)
        return nets["retinanet"].apply(networks["retinanet"], stages)

    return apply, {name: variables(state, name, averaged=False) for name in nets}


def our_inference(config: Config, bare: bool = False) -> Callable[[], None]:
    """A function that runs the network on a batch, jitted."""
    apply, networks = our_network(config)
    network, images = jax.jit(apply), jax.device_put(batches(config)[0]["image"])
    with bare_convolutions() if bare else contextlib.nullcontext():
        network(networks, images)
    return lambda: jax.block_until_ready(network(networks, images))


def torch_loss(config: Config, device: str) -> tuple[torch.nn.Module, Callable]:
    """A detector in torch, and its loss as a function of outputs and objects."""
    recipe = config["recipe"]
    if config["system"] == "detection.yolov2":
        return torch_detectors.YoloV2(recipe).to(device), partial(torch_detectors.region_loss, recipe=recipe)
    strides = stage_strides(recipe["stem"], recipe["strides"])
    names = ("levels", "sizes", "scales", "ratios")
    anchors = retinanet.lay_anchors(recipe["shape"][:2], strides, *(recipe[name] for name in names))
    anchors = torch.from_numpy(np.concatenate(anchors)).to(device)
    net = torch_detectors.RetinaNet(recipe).to(device)
    return net, partial(torch_detectors.focal_loss, anchors=anchors, recipe=recipe)


def torch_batches(config: Config, device: str, layout: Layout = CONTIGUOUS) -> list[dict[str, torch.Tensor]]:
    """The same batches in torch, images NCHW in a memory layout."""
    placed = [{name: torch.from_numpy(np.array(rows)).to(device) for name, rows in b.items()} for b in batches(config)]
    return [{**batch, "image": batch["image"].permute(0, 3, 1, 2).contiguous(memory_format=layout)} for batch in placed]


def torch_step(config: Config, device: str = "cpu", layout: Layout = CONTIGUOUS) -> Callable[[], None]:
    """A function that takes one training step in torch, with images and kernels in a memory layout."""
    torch.set_num_threads(THREADS)
    net, loss = torch_loss(config, device)
    net = net.to(memory_format=layout)
    options, turn = config["recipe"]["optimiser"], itertools.cycle(torch_batches(config, device, layout))
    rates = dict(lr=options["learning_rate"], weight_decay=options.get("weight_decay", 0.0), fused=True)
    if options["name"] == "sgd":
        tx = torch.optim.SGD(net.parameters(), momentum=options["momentum"], **rates)
    else:
        tx = torch.optim.AdamW(net.parameters(), **rates)
    share = config["recipe"]["ema"]
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(share), use_buffers=True) if share else None
    if device != "cpu":
        net.compile()

    def work():
        batch = next(turn)
        with torch.autocast(device, torch.bfloat16, enabled=device != "cpu"):
            outputs = net(batch["image"])
        total = loss(jax.tree.map(torch.Tensor.float, outputs), batch)
        tx.zero_grad()
        total.backward()
        if "clip" in options:
            torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip"])
        tx.step()
        if average is not None:
            average.update_parameters(net)
        if device != "cpu":
            torch.cuda.synchronize()

    return work


def torch_inference(config: Config, device: str = "cpu") -> Callable[[], None]:
    """A function that runs the network on a batch in torch."""
    return without_gradients(torch_loss(config, device)[0], torch_batches(config, device)[0]["image"])


def compared() -> dict[str, tuple[Config, dict[str, Callable]]]:
    """The comparisons by title: the config, and the contestants' makers."""
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    changes, device = ({"precision": "bfloat16"}, "cuda") if gpu else ({}, "cpu")
    cases = {}
    for name in ("yolov2_scenes", "retinanet_scenes"):
        if not (CONFIGS / f"{name}.py").exists():
            continue
        config = experiment(name, changes)
        for what, ours, theirs in [
            ("training step", our_step, torch_step),
            ("network, no gradients", our_inference, torch_inference),
        ]:
            makers = {"ours": partial(ours, config), "torch": partial(theirs, config, device)}
            makers |= {} if gpu else {"bare": partial(ours, config, bare=True)}
            cases[f"{name}: {what}, batch {config['data']['batch']}"] = (config, makers)
    return cases


def step_flops(config: Config) -> float:
    """FLOPs of our training step, in products and convolutions."""
    batch = {name: jax.ShapeDtypeStruct(rows.shape, rows.dtype) for name, rows in batches(config)[0].items()}
    step = jax.jit(experiments.build(config).train_step)
    return flops.count(step.trace(abstract(config), batch, jax.random.key(0)).jaxpr).total()


def torch_lines(rounds: int, only: str) -> tuple[list[str], list[str]]:
    """The table of comparisons with torch, and those that miss their bar."""
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    last = "share of peak" if gpu else "bare XLA / torch"
    lines, missed = [f"| work | bar | ours / torch | ours, ms | torch, ms | {last} |", "|" + "---|" * 6], []
    for title, (config, makers) in compared().items():
        if only not in title:
            continue
        bar = GPU_BAR if gpu else next(bar for what, bar in BARS.items() if what in title)
        times = report.interleave(makers, rounds)
        low, middle, high = report.ratio(times["ours"], times["torch"])
        ours, theirs = (np.median(times[who]) for who in ("ours", "torch"))
        if not gpu:
            cell = f"{report.ratio(times['bare'], times['torch'])[1]:.2f}"
        elif "training" in title:
            peak = next((rate for name, rate in PEAKS.items() if name in jax.devices()[0].device_kind), np.nan)
            cell = f"{step_flops(config) / (ours / 1e3) / peak:.0%}"
        else:
            cell = ""
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {title} | <= {bar} | {ratio} | {ours:.1f} | {theirs:.1f} | {cell} |")
        print(lines[-1], flush=True)
        missed += [] if middle <= bar else [title]
    return lines, missed


HEADER = """## Detectors

`python -m benchmarks.detectors`: {where}. Images as in each config, suppression included; FLOPs are those of
products and convolutions, two for a multiplication and an addition. mAP: minimum and maximum over the seeds in
RESULTS.md. Times: medians over rounds in which contestants take turns. {machine}.
"""
BESIDE = """
### Beside torch

The same networks, losses, optimisers and averages, {how}. Ratios are medians of the rounds' ratios, with quartiles.
"""


def main(_) -> None:
    os.environ["XLA_PYTHON_CLIENT_PREALLOCATE"] = "false"  # several processes and two libraries share a GPU's memory
    gpu = torch.cuda.is_available() and jax.default_backend() == "gpu"
    beside, missed = torch_lines(ROUNDS.value, ONLY.value)
    if not ONLY.value:
        where = torch.cuda.get_device_name() if gpu else f"CPU, {THREADS} threads each, float32"
        header = HEADER.format(where=where, machine=report.machine(["jax", "flax", "torch"]))
        middle = BESIDE.format(how="torch's compiled, bfloat16" if gpu else "float32, torch in its default layout")
        report.write_section("detectors", "\n".join([header, *frame_lines(ROUNDS.value), middle, *beside]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
