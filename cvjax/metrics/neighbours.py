"""Nearest neighbours among features: exact distances in bounded memory, and improved precision and recall by them."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float

from cvjax.errors import UserError

CELLS = 2**22  # of a table of distances that is held at a time: 32 MB
DIGITS = 1e-9  # relative error from which on a squared distance is computed again


def distance_tables(
    points: Float[np.ndarray, "points features"], centres: Float[np.ndarray, "centres features"]
) -> Iterator[Float[np.ndarray, "rows centres"]]:
    """Returns all L2 distances of points to centres in float64, as tables of some rows each, one below the other.

    They are |p|^2 + |c|^2 - 2 p.c, one matrix product. Where that difference loses digits, such as for near copies or
    far from all else, it is replaced by the sum of squared differences. So equal rows are at distance 0.
    """
    points, centres = np.asarray(points, np.float64), np.asarray(centres, np.float64)
    middle = np.median(
        centres, axis=0
    )  # the nearer to the origin, the smaller the rounding; a far row does not move it
    points, centres = points - middle, centres - middle
    sizes, rows = np.einsum("ij,ij->i", centres, centres), max(1, CELLS // len(centres))
    rounding = np.finfo(np.float64).eps * points.shape[1] / DIGITS
    for start in range(0, len(points), rows):
        part = points[start : start + rows]
        scale = np.einsum("ij,ij->i", part, part)[:, None] + sizes
        with np.errstate(over="ignore", invalid="ignore"):
            squares = scale - 2 * part @ centres.T
        for row, lost in enumerate(~(squares >= rounding * scale)):  # also where it is not a number
            if lost.any():
                squares[row, lost] = np.square(part[row] - centres[lost]).sum(axis=1)
        yield np.sqrt(squares)


def precision_recall(
    samples: Float[np.ndarray, "samples features"], reference: Float[np.ndarray, "references features"], k: int = 3
) -> tuple[float, float]:
    """Computes improved precision (are samples like real images?) and recall (are all real images like some sample?).

    The real images' manifold is the union of a ball around each, with its k-th nearest neighbour on the surface;
    precision is the share of the samples inside. Recall exchanges the two sets. Both depend on the number of images of
    each kind: compare only figures taken with the same numbers.

    Returns (precision, recall), both in [0, 1]. Raises a UserError for no more than k images of a kind.

    Source: Kynkaanniemi et al., "Improved precision and recall metric for assessing generative models" (2019), eq. 1.
    """
    if not 0 < k < min(len(samples), len(reference)):
        raise UserError(f"the neighbour k={k} takes more images of each kind: {len(samples)} and {len(reference)}.")
    return _covered(samples, reference, k), _covered(reference, samples, k)


def _covered(points: Float[np.ndarray, "points features"], centres: Float[np.ndarray, "centres f"], k: int) -> float:
    """Share of the points within the ball of any centre. Place 0 of a centre's own distances is its own."""
    radii = np.concatenate([np.partition(table, k, axis=1)[:, k] for table in distance_tables(centres, centres)])
    inside = [(table <= radii).any(axis=1) for table in distance_tables(points, centres)]
    return float(np.concatenate(inside).mean())
