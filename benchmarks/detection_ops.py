"""Non-maximum suppression against NumPy, and detection metrics against pycocotools.

    python -m benchmarks.detection_ops [--nms_rounds=15] [--images=5000]

Checks first that the answers are the same. Writes the section `detection_ops` of BENCHMARKS.md (at the default size),
and exits with 1 if a bar is missed.
"""

import os
import sys
import time
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from absl import app, flags

from benchmarks import report
from cvjax.metrics import coco, detection
from cvjax.ops.nms import batched_nms, nms

ROUNDS = flags.DEFINE_integer("nms_rounds", 15, "How often each NMS is timed.")
IMAGES = flags.DEFINE_integer("images", 5000, "Images of the detector's figures; 5,000 are written to the file.")
BOXES, CHOSEN, LIMIT_MS = 4000, 1000, 12.0
CLASSES, OBJECTS, DETECTIONS, BATCH = 80, 8, 100, 50


# --- non-maximum suppression --------------------------------------------------------------------------------------


def boxes_of_an_image(span: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns 4,000 boxes of 5 to 100 px with centres in a square of side `span`, their scores and classes."""
    random = np.random.default_rng(0)
    centres, sizes = random.uniform(0, span, (BOXES, 2)), random.uniform(5, 100, (BOXES, 2))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1).astype(np.float32)
    scores = random.uniform(size=BOXES).astype(np.float32)
    return boxes, scores, random.integers(0, CLASSES, BOXES).astype(np.int32)


def numpy_greedy(boxes: np.ndarray, scores: np.ndarray, threshold: float) -> np.ndarray:
    """Returns the boxes that greedy NMS keeps, with one vectorised IoU per kept box."""
    x1, y1, x2, y2 = np.ascontiguousarray(boxes.T)
    areas = (x2 - x1) * (y2 - y1)
    left, chosen = np.argsort(-scores, kind="stable"), []
    while len(left) and len(chosen) < CHOSEN:
        best, left = left[0], left[1:]
        chosen.append(best)
        width = np.maximum(np.minimum(x2[best], x2[left]) - np.maximum(x1[best], x1[left]), 0)
        height = np.maximum(np.minimum(y2[best], y2[left]) - np.maximum(y1[best], y1[left]), 0)
        both = width * height
        left = left[~(both / (areas[best] + areas[left] - both) > np.float32(threshold))]
    return np.array(chosen)


def ours(span: float, threshold: float, copies: int = 1, by_class: bool = False) -> Callable[[], tuple]:
    boxes, scores, labels = map(jnp.asarray, boxes_of_an_image(span))
    settings = {"iou_threshold": threshold, "max_outputs": CHOSEN}
    if by_class:
        run, inputs = jax.jit(partial(batched_nms, **settings)), (boxes, scores, labels)
    elif copies > 1:
        run = jax.jit(jax.vmap(partial(nms, **settings)))
        inputs = (jnp.stack([boxes] * copies), jnp.stack([jnp.roll(scores, i) for i in range(copies)]))
    else:
        run, inputs = jax.jit(partial(nms, **settings)), (boxes, scores)
    return lambda: jax.block_until_ready(run(*inputs))


def theirs(span: float, threshold: float, copies: int = 1, by_class: bool = False) -> Callable[[], list]:
    boxes, scores, labels = boxes_of_an_image(span)
    if by_class:
        groups = [labels == label for label in range(CLASSES)]
        return lambda: [numpy_greedy(boxes[own], scores[own], threshold) for own in groups]
    every = [np.roll(scores, i) for i in range(copies)]
    return lambda: [numpy_greedy(boxes, scores, threshold) for scores in every]


NMS_ROWS = {  # name: (settings, bar in ms)
    "4,000 boxes to 1,000, spread out, IoU 0.5": ({"span": 1000.0, "threshold": 0.5}, LIMIT_MS),
    "4,000 boxes to 803, crowded, IoU 0.3": ({"span": 300.0, "threshold": 0.3}, LIMIT_MS),
    "4,000 boxes to 57, crowded, IoU 0": ({"span": 300.0, "threshold": 0.0}, LIMIT_MS),
    "4,000 boxes of 80 classes to 1,000, IoU 0.5": (
        {"span": 300.0, "threshold": 0.5, "by_class": True},
        LIMIT_MS,
    ),
    "8 images at once, 4,000 boxes to 803, IoU 0.3": ({"span": 300.0, "threshold": 0.3, "copies": 8}, None),
}


def nms_row(name: str, rounds: int) -> tuple[str, bool]:
    """Returns a line of the table, and whether the bar is met."""
    settings, bar = NMS_ROWS[name]
    if "by_class" not in settings and "copies" not in settings:
        indices, valid = map(np.asarray, ours(**settings)())
        np.testing.assert_array_equal(indices[valid], theirs(**settings)()[0])
    times = report.interleave({"ours": partial(ours, **settings), "numpy": partial(theirs, **settings)}, rounds)
    low, middle, high = report.ratio(times["ours"], times["numpy"])
    mine, other = (float(np.median(times[who])) for who in ("ours", "numpy"))
    limit = f"<= {bar:.0f} ms" if bar else ""
    line = f"| {name} | {limit} | {middle:.3f} ({low:.3f} to {high:.3f}) | {mine:.2f} | {other:.1f} |"
    return line, not bar or mine <= bar


# --- figures of a detector ----------------------------------------------------------------------------------------


def detections_of_a_set(images: int) -> list[tuple[dict, dict]]:
    """Returns batches and outputs of a mediocre detector: accurate, poor, misclassified and duplicate boxes."""
    random, rows = np.random.default_rng(0), []
    for start in range(0, images, BATCH):
        size = min(BATCH, images - start)
        centres = random.uniform(0, 500, (size, OBJECTS, 2))
        extent = np.exp(random.uniform(np.log(16), np.log(300), (size, OBJECTS, 2)))
        boxes = np.concatenate([centres - extent / 2, centres + extent / 2], -1).astype(np.float32)
        labels = random.integers(0, CLASSES, (size, OBJECTS)).astype(np.int32)
        source = random.integers(0, OBJECTS, (size, DETECTIONS))
        noise = random.normal(size=(size, DETECTIONS, 4)) * random.choice([1, 5, 30, 100], (size, DETECTIONS, 1))
        guesses = np.sort((np.take_along_axis(boxes, source[..., None], 1) + noise).reshape(size, -1, 2, 2), axis=2)
        right = random.uniform(size=source.shape) < 0.6
        names = np.where(right, np.take_along_axis(labels, source, 1), random.integers(0, CLASSES, source.shape))
        batch = {"boxes": boxes, "labels": labels, "mask": np.ones(labels.shape, bool)}
        batch |= {"crowd": random.uniform(size=labels.shape) < 0.01, "area": (0.7 * extent.prod(-1)).astype(np.float32)}
        outputs = {"boxes": guesses.reshape(size, -1, 4).astype(np.float32), "labels": names.astype(np.int32)}
        outputs |= {
            "scores": random.uniform(size=names.shape).astype(np.float32),
            "detected": np.ones(names.shape, bool),
        }
        rows.append((batch, outputs))
    return rows


def figures_row(images: int) -> str:
    """Returns a line of the table. Each is timed once, as pycocotools takes a minute; both use one core."""
    rows, names = detections_of_a_set(images), [str(label) for label in range(CLASSES)]
    seconds, found = [], []
    for measure in (
        lambda: detection.figures(rows, names),
        partial(coco.pycocotools_figures, *coco.convert(rows, names)),
    ):
        start = time.perf_counter()
        found.append(measure())
        seconds.append(time.perf_counter() - start)
    for name, value in found[1].items():
        np.testing.assert_allclose(found[0][name], value, atol=1e-12)
    name = f"VOC's and COCO's figures of {images:,} images x {DETECTIONS} detections; pycocotools: COCO's alone"
    return f"| {name} | | {seconds[0] / seconds[1]:.3f} | {1e3 * seconds[0]:,.0f} | {1e3 * seconds[1]:,.0f} |"


def main(argv: list[str]) -> None:
    del argv
    lines = ["| work | bar | ours / theirs | ours, ms | theirs, ms |", "|" + "---|" * 5]
    print("\n".join(lines))
    missed = []
    for name in NMS_ROWS:
        line, met = nms_row(name, ROUNDS.value)
        missed += [] if met else [name]
        lines.append(line)
        print(line, flush=True)
    lines.append(figures_row(IMAGES.value))
    print(lines[-1])
    if IMAGES.value == IMAGES.default:
        report.write_section("detection_ops", "\n".join([HEADER, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


HEADER = f"""## Non-maximum suppression and figures of detectors

`python -m benchmarks.detection_ops`, on CPU, {len(os.sched_getaffinity(0))} cores. NMS beside the
usual loop in NumPy, vectorised over the boxes left; times are medians over rounds in which both are timed in turn,
ratios medians of the rounds' ratios, with their quartiles.
Figures beside pycocotools, whose input has been converted before; both give the same figures to 1e-12.
{report.machine(["jax", "numpy", "pycocotools"])}.
"""

if __name__ == "__main__":
    app.run(main)
