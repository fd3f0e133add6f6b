"""Exact nearest neighbours among many unit vectors, by blocked matrix products and a partial choice of the best.

On unit vectors the order by Euclidean distance is that of scalar products: Schroff et al., FaceNet, 2015
(arXiv:1503.03832), section 3.1.
"""

import numpy as np
from jaxtyping import Float, Int

BLOCK = 16_384  # vectors that are compared at once: with 100 queries 6.5 MB of products, which stay in the cache
QUERIES = 512  # at once
SPARE = 16  # candidates beyond those asked for, whose order rounding of float32 may have exchanged with theirs
CROWDED = 8  # times the candidates: with more that exceed the worst of them, a block's best are chosen first


def nearest(
    queries: Float[np.ndarray, "queries features"], entries: Float[np.ndarray, "entries features"], count: int
) -> tuple[Int[np.ndarray, "queries _"], Float[np.ndarray, "queries _"]]:
    """Finds the `count` entries nearest to each query, nearest first, or all if there are fewer.

    Returns (their indices, their Euclidean distances in float64, computed from differences, so that equal vectors are
    at distance 0). Of more entries at one distance than are asked for, any may be returned. The vectors are of length
    1. A call takes 3 flops and 4 bytes of reading per number of the entries and query, and little memory.
    """
    parts = [_nearest(queries[start : start + QUERIES], entries, count) for start in range(0, len(queries), QUERIES)]
    if not parts:
        return np.zeros((0, min(count, len(entries))), np.int64), np.zeros((0, min(count, len(entries))))
    return tuple(map(np.concatenate, zip(*parts, strict=True)))


def _nearest(queries: np.ndarray, entries: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
    kept = min(count + SPARE, len(entries))
    products, indices = np.zeros((len(queries), 0), np.float32), np.zeros((len(queries), 0), np.int64)
    for start in range(0, len(entries), BLOCK):
        block = queries @ entries[start : start + BLOCK].T
        worst = products.min(axis=1) if products.shape[1] == kept else np.full(len(queries), -np.inf)
        hits = np.flatnonzero(block > np.float32(worst)[:, None])  # few, except in the first block
        if len(hits) > CROWDED * len(queries) * kept and block.shape[1] > kept:
            columns = np.argpartition(block, -kept, axis=1)[:, -kept:]
            rows = np.repeat(np.arange(len(queries)), kept)
        else:
            rows, columns = np.divmod(hits, block.shape[1])
        products, indices = _merge(products, indices, rows, block[rows, columns.ravel()], start + columns.ravel(), kept)
    gaps = queries[:, None].astype(np.float64) - entries[indices]
    distances = np.sqrt(np.square(gaps).sum(axis=-1))
    order = np.lexsort((indices, distances), axis=-1)[:, :count]
    return np.take_along_axis(indices, order, axis=1), np.take_along_axis(distances, order, axis=1)


def _merge(
    products: np.ndarray, indices: np.ndarray, rows: np.ndarray, further: np.ndarray, places: np.ndarray, kept: int
) -> tuple[np.ndarray, np.ndarray]:
    """The `kept` greatest products of each query, and their indices, of those found so far and further ones."""
    if not len(rows):
        return products, indices
    count = len(products)
    row = np.append(np.repeat(np.arange(count), products.shape[1]), rows)
    value, index = np.append(products, further), np.append(indices, places)
    order = np.lexsort((-value, row))
    row = row[order]
    first = np.searchsorted(row, np.arange(count))
    width = min(kept, np.bincount(row, minlength=count).min())
    chosen = order[first[:, None] + np.arange(width)]
    return value[chosen], index[chosen]
