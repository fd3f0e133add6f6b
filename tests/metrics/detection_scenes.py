"""Random scenes and detections of them, in the padded arrays of a detection dataset."""

import numpy as np


def scenes(seed, images=24, objects=8, detections=40, classes=3, size=150.0, grid=False):
    """Detections are objects moved a little, a lot or not at all, or of another class, with duplicates.

    With `grid`, corners are multiples of 8 and scores of .1, so that overlaps equal thresholds and scores tie. Some
    images have no object, some no detection.
    """
    random = np.random.default_rng(seed)
    rows, columns = (images, objects), (images, detections)
    centres, sizes = random.uniform(0, size, (*rows, 2)), np.exp(random.uniform(np.log(8), np.log(size), (*rows, 2)))
    boxes = np.concatenate([centres - sizes / 2, centres + sizes / 2], -1)
    boxes[:, -1] = boxes[:, 0]  # an object twice
    source = random.integers(0, objects, columns)
    guesses = np.take_along_axis(boxes, source[..., None], 1)
    guesses = guesses + random.normal(size=(*columns, 4)) * random.choice([0, 2, 6, 20], (*columns, 1))
    labels = random.integers(0, classes, rows).astype(np.int32)
    labels[:, -1] = labels[:, 0]
    names = np.where(
        random.uniform(size=columns) < 0.8,
        np.take_along_axis(labels, source, 1),
        random.integers(0, classes, columns),
    )
    scores = random.uniform(size=columns)
    if grid:
        boxes, guesses, scores = np.round(boxes / 8) * 8, np.round(guesses / 8) * 8, np.round(scores, 1)
    guesses = np.concatenate([np.minimum(guesses[..., :2], guesses[..., 2:]), guesses[..., 2:]], -1)
    batch = {
        "boxes": boxes.astype(np.float32),
        "labels": labels,
        "mask": (random.uniform(size=rows) < 0.6) & (np.arange(images) % 7 > 0)[:, None],
        "difficult": random.uniform(size=rows) < 0.2,
        "crowd": random.uniform(size=rows) < 0.1,
        "area": (sizes.prod(-1) * random.uniform(0.5, 1, rows)).astype(np.float32),
    }
    outputs = {
        "boxes": guesses.astype(np.float32),
        "scores": scores.astype(np.float32),
        "labels": names.astype(np.int32),
        "detected": (random.uniform(size=columns) < 0.9) & (np.arange(images) % 5 > 0)[:, None],
    }
    return batch, outputs


def in_batches(batch, outputs, size):
    """Rows of a loop: (batch, outputs) after (batch, outputs)."""
    for start in range(0, len(batch["mask"]), size):
        chunk = slice(start, start + size)
        yield {k: v[chunk] for k, v in batch.items()}, {k: v[chunk] for k, v in outputs.items()}
