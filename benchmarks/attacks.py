"""PGD beside the same in torch, and fooling images of all classes in one compiled loop beside a loop in Python.

    python -m benchmarks.attacks

Needs the extra `parity`. The classifier is the frozen one of digits, with the same weights in torch. Contestants are
timed alternately, each in a process of its own. Writes the section `attacks` of BENCHMARKS.md, and exits with 1 if a
bar is missed.
"""

import sys
from collections.abc import Callable, Mapping
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app
from torch import nn
from torch.nn import functional as F

from benchmarks import report, steps
from cvjax import data
from cvjax.attacks.fooling import Direct, direct_encoding, evolve, new_archive
from cvjax.attacks.pgd import pgd
from cvjax.weights import digit_classifier

IMAGES, STEPS, EPSILON = 512, 40, 0.1
GENERATIONS, OFFSPRING = 50, 400
ROUNDS = 9
PGD_BAR, LOOP_BAR = 1.0, 1.0


def digits(count: int) -> tuple[np.ndarray, np.ndarray]:
    """The first digits of both splits, and their labels."""
    splits = [data.arrays("digits", split) for split in ("test", "train")]
    return tuple(np.concatenate([split[name] for split in splits])[:count] for name in ("image", "label"))


# PGD.


def our_pgd(count: int = IMAGES, iterations: int = STEPS) -> Callable[[], jax.Array]:
    """A function that attacks digits by our PGD, compiled."""
    images, labels = jax.device_put(digits(count))

    @jax.jit
    def attack(held, key, images, labels):
        logits_fn = lambda x: digit_classifier.NET.apply(held, x)[0]  # noqa: E731
        return pgd(key, logits_fn, images, labels, EPSILON, iterations)

    held = jax.device_put({"params": digit_classifier.load()})
    return lambda: jax.block_until_ready(attack(held, jax.random.key(0), images, labels))


class TorchClassifier(nn.Module):
    """The frozen classifier in torch."""

    def __init__(self):
        super().__init__()
        self.layers, channels = nn.ModuleDict(), 1
        for stage, width in enumerate((32, 64), start=1):
            for index in (1, 2):
                self.layers[f"conv_{stage}_{index}"] = nn.Conv2d(channels, width, 3, padding=1)
                channels = width
        self.layers["features"], self.layers["logits"] = nn.Linear(256, 64), nn.Linear(64, 10)
        with torch.no_grad():
            for name, held in digit_classifier.load().items():
                kernel = held["kernel"].transpose((3, 2, 0, 1) if name.startswith("conv") else (1, 0))
                self.layers[name].weight.copy_(torch.from_numpy(np.ascontiguousarray(kernel)))
                self.layers[name].bias.copy_(torch.from_numpy(np.array(held["bias"])))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Images [batch, 1, 8, 8] in [0, 1] -> logits."""
        x = 2 * images - 1
        for stage in (1, 2):
            for index in (1, 2):
                x = F.relu(self.layers[f"conv_{stage}_{index}"](x))
            x = F.avg_pool2d(x, 2)
        x = x.permute(0, 2, 3, 1).flatten(1)  # in our order
        return self.layers["logits"](F.relu(self.layers["features"](x)))


def torch_pgd(count: int = IMAGES, iterations: int = STEPS) -> Callable[[], torch.Tensor]:
    """A function that attacks digits by the same steps in torch."""
    torch.set_num_threads(steps.THREADS)
    net = TorchClassifier().requires_grad_(False)
    images, labels = map(torch.from_numpy, digits(count))
    images, labels = images.permute(0, 3, 1, 2).contiguous(), labels.long()
    step = 2.5 * EPSILON / iterations

    def work():
        moved = (images + EPSILON * (2 * torch.rand_like(images) - 1)).clamp(0, 1)
        for _ in range(iterations):
            moved.requires_grad_(True)
            loss = F.cross_entropy(net(moved), labels, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, moved)
            moved = moved.detach() + step * gradient.sign()
            moved = torch.maximum(torch.minimum(moved, images + EPSILON), images - EPSILON).clamp(0, 1)
        return moved

    return work


# Fooling images.


def compiled_loop(generations: int = GENERATIONS, offspring: int = OFFSPRING) -> Callable[[], jax.Array]:
    """A function that evolves fooling images of all digits in one compiled loop, and returns their confidences."""
    encoding = direct_encoding((8, 8, 1), Direct())

    @jax.jit
    def run(held, key):
        logits_fn = lambda x: digit_classifier.NET.apply(held, x)[0]  # noqa: E731
        begin_key, key = jax.random.split(key)
        archive = new_archive(begin_key, encoding, 10)
        return evolve(key, logits_fn, encoding, archive, generations, offspring)[0]["confidences"]

    held = jax.device_put({"params": digit_classifier.load()})
    return lambda: jax.block_until_ready(run(held, jax.random.key(0)))


def python_loop(generations: int = GENERATIONS, offspring: int = OFFSPRING) -> Callable[[], np.ndarray]:
    """The same evolution as a loop in Python: NumPy changes the images, a compiled classifier looks at them."""
    held = jax.device_put({"params": digit_classifier.load()})
    classify = jax.jit(lambda held, images: jax.nn.softmax(digit_classifier.NET.apply(held, images)[0]))

    def work():
        generator = np.random.default_rng(0)
        champions = generator.random((10, 8, 8, 1), np.float32)
        confidences = np.zeros(10, np.float32)
        for _ in range(generations):
            images = champions[generator.integers(10, size=offspring)]
            chosen, u = generator.random((2, *images.shape), np.float32)
            share = np.where(u < 0.5, (2 * u) ** (1 / 16) - 1, 1 - (2 * (1 - u)) ** (1 / 16))
            images = np.clip(np.where(chosen < 0.1, images + share, images), 0, 1)
            found = np.asarray(classify(held, jnp.asarray(images)))
            for label in range(10):
                best = found[:, label].argmax()
                if found[best, label] > confidences[label]:
                    champions[label], confidences[label] = images[best], found[best, label]
        return confidences

    return work


# The table.


def row(name: str, bar: float, times: Mapping[str, list[float]]) -> tuple[str, bool]:
    """A line of the table, and whether the bar is met; the second contestant is the reference."""
    ours, theirs = times.values()
    low, middle, high = report.ratio(ours, theirs)
    ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
    return f"| {name} | <= {bar} | {ratio} | {np.median(ours):.1f} | {np.median(theirs):.1f} |", middle <= bar


CASES = {
    f"PGD-{STEPS} on {IMAGES} digits, beside torch": (PGD_BAR, {"ours": our_pgd, "torch": torch_pgd}),
    f"{GENERATIONS} generations of {OFFSPRING} fooling images, 10 classes, beside a loop in Python": (
        LOOP_BAR,
        {"compiled": compiled_loop, "python": python_loop},
    ),
}


def main(_) -> None:
    lines, missed = ["| work | bar | ours / the other | ours, ms | the other, ms |", "|" + "---|" * 5], []
    for name, (bar, makers) in CASES.items():
        line, met = row(name, bar, report.interleave({who: partial(make) for who, make in makers.items()}, ROUNDS))
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
    header = f"""## Attacks

`python -m benchmarks.attacks`: CPU, {steps.THREADS} threads each, float32, the frozen classifier of digits with the
same weights everywhere. Times are medians over rounds in which both are timed in turn, ratios medians of the rounds'
ratios, with their quartiles.
{report.machine(["jax", "flax", "torch"])}.
"""
    report.write_section("attacks", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
