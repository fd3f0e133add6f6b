"""Convolutions of all kinds, JAX's own beside ours, and how equal they are to be."""

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from cvjax.ops.convolution import conv

# image, kernel, stride, padding, dilation, (channels, features, groups): each takes a path of its own on CPU.
CASES = {
    "3x3": ((6, 7), (3, 3), 1, 1, 1, (3, 4, 1)),
    "4x4 stride 2": ((8, 6), (4, 4), 2, 1, 1, (8, 4, 1)),  # phases
    "3x3 stride 2": ((7, 8), (3, 3), 2, 1, 1, (9, 4, 1)),  # phases of unequal size, a row never reached
    "few channels": ((6, 6), (4, 4), 2, 1, 1, (3, 4, 1)),
    "SAME": ((7, 6), (3, 2), (2, 3), "SAME", 1, (8, 4, 1)),
    "VALID": ((7, 8), (5, 3), (1, 2), "VALID", 1, (8, 2, 1)),
    "asymmetric": ((8, 7), (3, 2), (2, 1), ((0, 3), (2, 0)), 1, (4, 4, 1)),
    "cropping": ((8, 9), (3, 5), (2, 1), ((-1, 2), (3, -2)), 1, (8, 2, 1)),
    "wide": ((7, 6), (3, 2), (2, 1), ((1, 0), (2, 1)), (1, 2), (3, 24, 1)),  # products of patches and outputs
    "few outputs": ((4, 3), (4, 3), 2, 1, 1, (3, 48, 1)),  # products of patches, and patches laid over one another
    "few dilated": ((5, 6), (3, 2), (1, 2), ((-1, 2), (1, 0)), (2, 3), (2, 64, 1)),
    "few in groups": ((3, 4), (3, 3), 1, 1, 1, (4, 96, 2)),
    "dilated": ((9, 8), (3, 3), 1, (2, 4), (2, 3), (3, 4, 1)),
    "dilated stride 2": ((9, 9), (3, 2), 2, 2, 2, (8, 4, 1)),
    "taps that see padding": ((4, 7), (5, 3), (1, 2), ((9, 4), (5, 6)), (4, 6), (3, 4, 1)),
    "one tap that sees the image": ((5, 6), (3, 3), 1, 7, 7, (4, 8, 1)),
    "1x1": ((5, 4), (1, 1), 1, 0, 1, (4, 6, 1)),
    "1x1 stride 2": ((6, 5), (1, 1), 2, 0, 1, (4, 6, 1)),  # stamps
    "whole image": ((5, 4), (5, 4), 1, 0, 1, (3, 6, 1)),  # a matrix product
    "patches": ((9, 8), (4, 2), (4, 3), (1, 0), 1, (3, 5, 1)),  # stamps with a gap
    "holes": ((8, 9), (5, 1), (2, 3), 1, 1, (8, 2, 1)),  # phases that no tap reaches
    "stride 4": ((13, 13), (5, 5), 4, 2, 1, (8, 2, 1)),  # more phases than are worth it
    "grouped": ((6, 5), (3, 3), 1, 1, 1, (6, 9, 3)),
    "grouped stride 2": ((6, 6), (4, 4), 2, 1, 1, (16, 4, 2)),
    "grouped 1x1": ((4, 5), (1, 1), 2, 0, 1, (6, 4, 2)),
    "depthwise": ((10, 7), (3, 3), 1, 1, 1, (5, 5, 5)),  # more rows than one block
    "depthwise stride 2": ((21, 6), (3, 5), 2, (1, 2), 1, (4, 4, 4)),
    "depthwise dilated": ((8, 9), (3, 3), (1, 2), ((3, 1), (-1, 4)), (2, 1), (4, 4, 4)),
    "depthwise with many taps": ((9, 10), (9, 8), 1, 4, 1, (2, 2, 2)),
    "depthwise times 3": ((6, 7), (3, 2), (2, 1), 1, 1, (4, 12, 4)),
    "depthwise times 8": ((5, 6), (3, 3), 1, 1, 1, (2, 16, 2)),
    "depthwise sums": ((5, 6), (3, 3), 2, 1, 1, (8, 4, 4)),  # two channels to one
}


def pair(value):
    return (value, value) if isinstance(value, int) else value


def normal(seed, shape):
    return jnp.asarray(np.random.default_rng(seed).standard_normal(shape, np.float32))


def problem(name):
    """(ours, JAX's own, x, w, v) where the outputs are of order one and v is another image."""
    image, kernel, stride, padding, dilation, (channels, features, groups) = CASES[name]
    w = normal(0, (*kernel, channels // groups, features)) / np.sqrt(np.prod(kernel) * channels / groups)
    x, v = normal(1, (2, *image, channels)), normal(2, (2, *image, channels))

    def ours(x, w):
        return conv(x, w, stride=stride, padding=padding, dilation=dilation, groups=groups)

    def plain(x, w):
        return lax.conv_general_dilated(
            *(x, w, pair(stride), padding if isinstance(padding, str) else tuple(map(pair, pair(padding)))),
            rhs_dilation=pair(dilation),
            feature_group_count=groups,
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
        )

    return ours, plain, x, w, v


def assert_same(actual, expected, tolerance=1e-5):
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        assert a.shape == b.shape
        np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(abs(b).max(), 1e-6))
