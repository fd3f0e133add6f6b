"""The time of 100 queries to a gallery of embeddings, by its size, beside faiss's exact index.

    python -m benchmarks.gallery [--largest=1000000]

Needs the extra `parity`. Contestants are timed alternately, each in a process of its own, and both find the same
people. Writes the section `gallery` of BENCHMARKS.md (at the default size), and exits with 1 if the bar is missed.
"""

import sys
from collections.abc import Callable
from functools import partial

import faiss
import numpy as np
from absl import app, flags

from benchmarks import report, steps
from cvjax.recognition.gallery import Embeddings, Gallery

LARGEST = flags.DEFINE_integer("largest", 1_000_000, "People in the largest gallery; a million is written to the file.")
SIZES = (1_000, 10_000, 100_000, 1_000_000)
FEATURES, QUERIES, ROUNDS = 128, 100, 7
BAR_MS = 1000.0  # at a million
MARK = "random"


def crowd(size: int) -> tuple[np.ndarray, np.ndarray]:
    """Returns one unit vector for each person, and queries: noisy ones of the first people."""
    generator = np.random.default_rng(0)
    vectors = generator.standard_normal((size, FEATURES), np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    queries = vectors[:QUERIES] + generator.standard_normal((QUERIES, FEATURES), np.float32) / 20
    return vectors, queries / np.linalg.norm(queries, axis=1, keepdims=True)


def ours(size: int) -> Callable[[], np.ndarray]:
    """A function that identifies all queries among people with one embedding each."""
    vectors, queries = crowd(size)
    names, people = tuple(map(str, range(size))), np.arange(size, dtype=np.int32)
    gallery, embeddings = Gallery(MARK, names, vectors, people, threshold=1.0), Embeddings(queries, MARK)
    return lambda: gallery.identify(embeddings).people[:, 0]


def theirs(size: int) -> Callable[[], np.ndarray]:
    """A function that finds the same by faiss's flat index of scalar products."""
    faiss.omp_set_num_threads(steps.THREADS)
    vectors, queries = crowd(size)
    index = faiss.IndexFlatIP(FEATURES)
    index.add(vectors)
    return lambda: index.search(queries, 1)[1][:, 0]


def row(size: int, rounds: int) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met."""
    makers = {"ours": partial(ours, size), "faiss": partial(theirs, size)}
    times = report.interleave(makers, rounds)
    low, middle, high = report.ratio(times["ours"], times["faiss"])
    mine, other = (float(np.median(times[who])) for who in makers)
    limit = f"<= {BAR_MS:.0f}" if size == max(SIZES) else ""
    return f"| {size:,} | {limit} | {mine:.2f} | {other:.2f} | {middle:.2f} ({low:.2f} to {high:.2f}) |", (
        not limit or mine <= BAR_MS
    )


def main(_) -> None:
    np.testing.assert_array_equal(ours(10_000)(), theirs(10_000)())
    lines, missed = ["| people | bar, ms | ours, ms | faiss, ms | ours / faiss |", "|---:|---|---:|---:|---|"], []
    for size in (size for size in SIZES if size <= LARGEST.value):
        line, met = row(size, ROUNDS)
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [f"{size:,} people"]
    header = f"""## Gallery

`python -m benchmarks.gallery`: CPU, {steps.THREADS} threads each, float32. {QUERIES} queries for the nearest of people
with one embedding of {FEATURES} numbers each, exactly, by `Gallery.identify` and by faiss's `IndexFlatIP`, which gives
the same people. Times are medians over rounds in which both are timed in turn, ratios medians of the rounds' ratios,
with their quartiles.
{report.machine(["numpy", "faiss-cpu"])}.
"""
    if LARGEST.value >= max(SIZES):
        report.write_section("gallery", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
