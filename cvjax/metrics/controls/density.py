"""Simple densities of images with few grey levels, as controls of likelihood models.

Each is counted on training images and evaluated on held-out ones in bits per dimension, the mean of -log2 p(pixel).
Images are grey levels 0 .. levels - 1; counts start at 1, so no level is impossible.
"""

import numpy as np
from jaxtyping import Int


def controls(
    train: Int[np.ndarray, "examples height width"], test: Int[np.ndarray, "held_out height width"], levels: int
) -> dict[str, dict[str, float]]:
    """Returns {density: {"bits_per_dim": bits of `test`}} of every density, the weakest first."""
    bits = {
        "uniform": float(np.log2(levels)),
        "histogram of all pixels": histogram_bits(train, test, levels),
        "histogram of each pixel": pixel_bits(train, test, levels),
        "table of pixel and two neighbours in 2 shades": neighbour_bits(train, test, levels, shades=2),
        "table of pixel and two neighbours in 6 shades": neighbour_bits(train, test, levels, shades=6),
    }
    return {name: {"bits_per_dim": value} for name, value in bits.items()}


def histogram_bits(
    train: Int[np.ndarray, "examples height width"], test: Int[np.ndarray, "held_out height width"], levels: int
) -> float:
    """Returns bits per dimension of `test` under p(level), one histogram for all pixels."""
    return _table_bits(np.zeros_like(train), train, np.zeros_like(test), test, levels)


def pixel_bits(
    train: Int[np.ndarray, "examples height width"], test: Int[np.ndarray, "held_out height width"], levels: int
) -> float:
    """Returns bits per dimension of `test` under p(level | position), independent pixels."""
    return _table_bits(_positions(train), train, _positions(test), test, levels)


def neighbour_bits(
    train: Int[np.ndarray, "examples height width"],
    test: Int[np.ndarray, "held_out height width"],
    levels: int,
    shades: int = 2,
) -> float:
    """Returns bits per dimension of `test` under p(level | position, shade of the left and of the upper neighbour).

    The grey levels of neighbours are split into `shades` equal parts; outside the image the shade is 0.
    """

    def context(images: np.ndarray) -> np.ndarray:
        shade = images * shades // levels
        left = np.pad(shade, ((0, 0), (0, 0), (1, 0)))[:, :, :-1]
        above = np.pad(shade, ((0, 0), (1, 0), (0, 0)))[:, :-1]
        return (_positions(images) * shades + left) * shades + above

    return _table_bits(context(train), train, context(test), test, levels)


def _positions(images: np.ndarray) -> np.ndarray:
    return np.broadcast_to(np.arange(images[0].size).reshape(images[0].shape), images.shape)


def _table_bits(
    train_context: np.ndarray, train: np.ndarray, test_context: np.ndarray, test: np.ndarray, levels: int
) -> float:
    """Bits per dimension of `test` under a table p(level | context) counted on `train` with add-one smoothing."""
    counts = np.ones((1 + max(train_context.max(), test_context.max()), levels))
    np.add.at(counts, (train_context, train), 1)
    probabilities = counts / counts.sum(axis=1, keepdims=True)
    return float(-np.log2(probabilities[test_context, test]).mean())
