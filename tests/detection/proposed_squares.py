"""Scenes of squares with proposals, and tiny detectors of regions."""

import numpy as np

SIDE = 10
COUNT = 24  # proposals
SEARCH = {
    "function": "cvjax.ops.proposals:selective_search",
    "kind": "boxes",
    "max_boxes": COUNT,
    "arguments": {"most": COUNT, "thresholds": (100.0, 200.0), "region": 20, "smallest": 6},
}
TINY = dict(shape=(32, 48, 3), classes=("blue", "red"), stages=(1, 1), width=4, hidden=16, dropout=0.0, windows=8)
TINY |= dict(svm=dict(images=16, refit=100, ridge=10.0), search=SEARCH, ema=0.9)
TINY |= dict(optimiser={"name": "adam", "learning_rate": 1e-2})


def squares(count=16, seed=0):
    """Scenes of two red or blue squares of 10 pixels side by side on noise; proposals near them, and elsewhere."""
    rng = np.random.default_rng(seed)
    left = np.stack([rng.integers(2, 12, count), rng.integers(26, 36, count)], axis=1)
    top, labels = rng.integers(2, 20, (count, 2)), rng.integers(0, 2, (count, 2))
    images = rng.uniform(0.3, 0.7, (count, 32, 48, 3)).astype(np.float32)
    for image, xs, ys, kinds in zip(images, left, top, labels, strict=True):
        for x, y, kind in zip(xs, ys, kinds, strict=True):
            image[y : y + SIDE, x : x + SIDE] = [1, 0, 0] if kind else [0, 0, 1]
    boxes = np.stack([left, top, left + SIDE, top + SIDE], axis=-1).astype(np.float32)
    near = np.repeat(boxes, 4, axis=1) + rng.uniform(-1.5, 1.5, (count, 8, 4))
    corner = rng.uniform(0, (34, 18), (count, COUNT - 8, 2))
    far = np.concatenate([corner, corner + rng.uniform(8, 14, corner.shape)], axis=-1)
    proposals = rng.permuted(np.arange(COUNT)[None].repeat(count, 0), axis=1)
    proposals = np.take_along_axis(np.concatenate([near, far], axis=1), proposals[..., None], axis=1)
    present = np.arange(COUNT) < rng.integers(COUNT - 3, COUNT + 1, (count, 1))
    proposals = np.where(present[..., None], np.clip(proposals, 0, (48, 32, 48, 32)), 0).astype(np.float32)
    nothing = np.zeros((count, 2), bool)
    marks = {"mask": ~nothing, "difficult": nothing, "crowd": nothing}
    marks |= {"proposals": proposals, "proposals_mask": present}
    return {"image": images, "boxes": boxes, "labels": labels.astype(np.int32), **marks}


def rows_of(batches):
    """What the loop gives `conclude`, of a state."""

    def rows(state):
        def apply(function):
            for batch in batches:
                outputs = function(state, batch)
                yield {name: np.asarray(values) for name, values in outputs.items()}, batch

        return apply

    return rows
