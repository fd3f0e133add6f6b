"""A triplet step with batch-hard mining over FaceNet's batch of 1,800 embeddings, beside the same in torch.

    python -m benchmarks.recognition [--rounds=7] [--size=1800]

Needs the extra `parity`. Contestants take turns in each round, each in a process of its own. The network is left out: a
step divides vectors by their lengths, chooses each one's furthest positive and nearest negative among all, and computes
the loss and its gradient with respect to the vectors. Writes the section `recognition` of BENCHMARKS.md, and exits with
1 if the bar is missed; with another --size it writes no file.
"""

import sys
from collections.abc import Callable
from functools import partial

import jax
import numpy as np
import torch
from absl import app, flags
from torch.nn import functional as F

from benchmarks import report, steps
from benchmarks.detectors import ROUNDS
from cvjax.recognition.metric_losses import choose_triplets, chosen_distances, triplet_loss, unit

BAR = 1.0  # our time by torch's
SIZE, FEATURES, VIEWS, MARGIN = 1800, 128, 40, 0.2  # FaceNet's: about forty pictures of a person in a batch

EMBEDDINGS = flags.DEFINE_integer("size", SIZE, "embeddings in a batch")


def batch(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Random vectors around a direction for each person, and who it is."""
    generator = np.random.default_rng(0)
    labels = np.arange(size, dtype=np.int32) // VIEWS
    people = generator.normal(size=(labels[-1] + 1, FEATURES))
    return (people[labels] + generator.normal(size=(size, FEATURES))).astype(np.float32), labels


def ours(size: int) -> Callable[[], np.ndarray]:
    """A function that takes our step and returns the gradient."""
    vectors, labels = map(jax.device_put, batch(size))

    @jax.jit
    def gradient(vectors, labels):
        def loss(vectors):
            embeddings = unit(vectors)
            chosen = choose_triplets(jax.random.key(0), embeddings, labels, "batch_hard")
            positive, negative = (chosen_distances(embeddings, each) for each in (chosen.positive, chosen.negative))
            return triplet_loss(positive, negative, chosen.chosen, MARGIN)

        return jax.value_and_grad(loss)(vectors)

    return lambda: np.asarray(jax.block_until_ready(gradient(vectors, labels))[1])


def theirs(size: int) -> Callable[[], np.ndarray]:
    """A function that takes the step in torch and returns the gradient."""
    torch.set_num_threads(steps.THREADS)
    vectors, labels = map(torch.from_numpy, batch(size))
    vectors.requires_grad_()

    def work():
        vectors.grad = None
        embeddings = F.normalize(vectors)
        with torch.no_grad():
            squares = embeddings.square().sum(1)
            distances = torch.addmm(squares[:, None] + squares, embeddings, embeddings.T, alpha=-2)
            same = labels[:, None] == labels
            nearest = distances.masked_fill(same, torch.inf).argmin(1)
            positives = same.fill_diagonal_(False)
            furthest = distances.masked_fill_(~positives, -torch.inf).argmax(1)
        gaps = (embeddings - embeddings[furthest]).square().sum(1) - (embeddings - embeddings[nearest]).square().sum(1)
        F.relu(gaps + MARGIN).mean().backward()
        return vectors.grad.numpy()

    return work


def main(_) -> None:
    size = EMBEDDINGS.value
    np.testing.assert_allclose(ours(size)(), theirs(size)(), rtol=1e-3, atol=1e-6)  # the same work
    times = report.interleave({"ours": partial(ours, size), "torch": partial(theirs, size)}, ROUNDS.value)
    name = f"triplet step, batch-hard, {size:,} embeddings of {FEATURES}"
    line, met = steps.row(name, BAR, times)
    lines = ["| work | bar | ours / torch | ours, ms | torch, ms |", "|" + "---|" * 5, line]
    print(line, flush=True)
    header = f"""## Recognition

`python -m benchmarks.recognition`: CPU, {steps.THREADS} threads each, float32, random vectors of {size // VIEWS}
people, without a network. Times are medians over rounds in which both are timed in turn, the ratio the median of the
rounds' ratios, with its quartiles. {report.machine(["jax", "torch"])}.
"""
    if size == SIZE:
        report.write_section("recognition", "\n".join([header, *lines]))
    if not met:
        sys.exit(f"Over the bar: {name}")


if __name__ == "__main__":
    app.run(main)
