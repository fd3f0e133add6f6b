"""DDPM: training steps beside torch's, and the compiled sampler beside a loop over the jitted network.

    python -m benchmarks.diffusion [--rounds=7] [--only=SUBSTRING]

Needs the extra `parity`. Pictures of 32 px are random. Contestants take turns in each round, each in a process of its
own. The loop jits a step of the sampler, the network with it, and takes the steps from Python: a compiled scan is
compared with a call for each step. Writes the section `diffusion` of BENCHMARKS.md, with peak memory, and exits with
1 if a bar is missed; --only writes no file.
"""

import itertools
import sys
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app

from benchmarks import report, segmentation, steps, torch_diffusion
from benchmarks.detectors import ONLY, ROUNDS
from cvjax import config as experiments
from cvjax.generative.diffusion import samplers

BAR = 1.2  # our time of a training step by torch's
SAMPLING_BAR = 1.0  # time of the compiled sampler by the loop's
Config = Mapping[str, Any]

RANDOM = {"data.name": steps.SYNTHETIC, "data.transforms": ()}
# name: the config, and changes to it
TRAINED = {
    "DDPM of the paper, 32 px, batch 4, training step": ("ddpm_cifar10", RANDOM | {"data.batch": 4}),
    "DDPM, configs/ddpm_digits.py, training step": ("ddpm_digits", {}),
}
# name: the config, changes to it, and the number of images
SAMPLED = {
    "64 digits, configs/ddpm_digits.py": ("ddpm_digits", {}, 64),
    "1 digit, configs/ddpm_digits.py": ("ddpm_digits", {}, 1),
    "1 image of DDPM of the paper, 32 px, 10 steps": ("ddpm_cifar10", {"recipe.process.steps": 10}, 1),
}


# --- training -----------------------------------------------------------------------------------------------------


def torch_step(config: Config) -> Callable[[], None]:
    """A function that takes one training step in torch."""
    torch.set_num_threads(steps.THREADS)
    torch.manual_seed(config["seed"])
    step = torch_diffusion.training_step(config["recipe"], torch_diffusion.UNet(config["recipe"]))
    placed = [torch.from_numpy(batch["image"].transpose(0, 3, 1, 2).copy()) for batch in steps.batches(config)]
    turn = itertools.cycle(placed)
    return lambda: step(next(turn))


def training_row(name: str, rounds: int) -> tuple[str, bool]:
    """A line of the table, and whether the bar is met."""
    config = steps.experiment(*TRAINED[name])
    makers = {"ours": partial(steps.ours, config), "torch": partial(torch_step, config)}
    times, memory = report.measure(makers, rounds, finish=segmentation.peak_memory)
    line, met = steps.row(name, BAR, times)
    return f"{line} {memory['ours'] / 2**30:.2f} / {memory['torch'] / 2**30:.2f} GiB |", met


# --- sampling -----------------------------------------------------------------------------------------------------


def sampler(config: Config, count: int, compiled: bool) -> Callable[[], jax.Array]:
    """A function that draws new images at every call, by one scan or step by step; the weights are random."""
    recipe = experiments.build(config)
    system, shape = recipe.sample.__self__, config["recipe"]["shape"]
    state = jax.jit(recipe.init)(jax.random.key(config["seed"]), {"image": jnp.zeros((1, *shape))})
    draw = partial(recipe.sample, state) if compiled else partial(draw_in_a_loop, stepper(system, state), system)
    keys = (jax.random.key(index) for index in itertools.count())
    return lambda: jax.block_until_ready(draw(next(keys), {"count": count})["image"])


def stepper(system: Any, state: Any) -> Callable[..., jax.Array]:
    """A jitted function (signals, number of the step, key) of one step of the ancestral sampler."""
    denoise, (levels, visited) = system.denoise(state, None), (system.alpha_bars, system.visited)
    table = samplers.posteriors(levels[visited], samplers.previous_alpha_bars(levels, visited))
    table = jax.tree.map(lambda values: jnp.asarray(values, jnp.float32), table)

    @jax.jit
    def step(noisy, index, key):
        row = jax.tree.map(lambda values: values[index], table)
        clean = jnp.clip(denoise(noisy, jnp.asarray(visited)[index])[0], -1, 1)
        mean = samplers.posterior_mean(clean, noisy, row)
        log_variance = row.log_variance if system.sampling.variance == "small" else row.log_beta
        fresh = jnp.exp(log_variance / 2) * jax.random.normal(key, noisy.shape)
        return jnp.where(index == len(visited) - 1, mean, mean + fresh)

    return step


def draw_in_a_loop(
    step: Callable[..., jax.Array], system: Any, key: jax.Array, inputs: Mapping[str, Any]
) -> dict[str, jax.Array]:
    """Draws the same images as `system.sample`, step by step."""
    start_key, step_key = jax.random.split(key)
    signals = jax.random.normal(start_key, (inputs["count"], *system.shape))
    for index, fresh_key in enumerate(jax.random.split(step_key, len(system.visited))):
        signals = step(signals, index, fresh_key)
    return {"image": jnp.clip((signals + 1) / 2, 0, 1)}


def sampling_row(name: str, rounds: int) -> tuple[str, bool]:
    """A line of the table, and whether the bar is met."""
    file, changes, count = SAMPLED[name]
    config = steps.experiment(file, changes)
    times = report.interleave(
        {kind: partial(sampler, config, count, kind == "scan") for kind in ("scan", "loop")}, rounds
    )
    low, middle, high = report.ratio(times["scan"], times["loop"])
    scan, loop = (1e3 * count / np.median(times[kind]) for kind in ("scan", "loop"))
    line = f"| {name} | <= {SAMPLING_BAR} | {middle:.2f} ({low:.2f} to {high:.2f}) | {scan:.3g} | {loop:.3g} |"
    return line, middle <= SAMPLING_BAR


# --- the tables ---------------------------------------------------------------------------------------------------


def main(_) -> None:
    tables = {
        "| training step | bar | ours / torch | ours, ms | torch, ms | memory, ours / torch |": (training_row, TRAINED),
        "| sampling | bar | scan / loop, time | scan, images/s | loop, images/s |": (sampling_row, SAMPLED),
    }
    lines, missed = [], []
    for head, (row, names) in tables.items():
        lines += [head, "|" + "---|" * (head.count("|") - 1)]
        for name in (name for name in names if ONLY.value in name):
            line, met = row(name, ROUNDS.value)
            lines.append(line)
            print(line, flush=True)
            missed += [] if met else [name]
        lines.append("")
    header = f"""## Diffusion

`python -m benchmarks.diffusion`: CPU, {steps.THREADS} threads each, float32, torch in its default layout, Adam fused.
Steps have the same network, loss, clipping, average and Adam. The sampler as one compiled scan beside a loop in Python
over its jitted step, which draws the same images. Times are medians over rounds in which both are timed in turn, ratios
medians of the rounds' ratios, with their quartiles; memory is the most that each process held.
{report.machine(["jax", "flax", "torch"])}.
"""
    if not ONLY.value:
        report.write_section("diffusion", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
