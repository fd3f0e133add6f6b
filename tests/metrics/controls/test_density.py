import math

import numpy as np

from cvjax.metrics import digits
from cvjax.metrics.controls import density


def brute_force(train, test, levels, context):
    """Mean -log2 p(level | context) by add-one counting, one pixel at a time."""
    counts = {}
    for image in train:
        for place in np.ndindex(image.shape):
            row = counts.setdefault(context(image, place), [1] * levels)
            row[image[place]] += 1
    bits = []
    for image in test:
        for place in np.ndindex(image.shape):
            row = counts.get(context(image, place), [1] * levels)
            bits.append(-math.log2(row[image[place]] / sum(row)))
    return np.mean(bits)


def images():
    rng = np.random.default_rng(0)
    base = rng.integers(0, 5, size=(30, 4, 3))
    base[:, :, 1] = np.minimum(base[:, :, 0] + rng.integers(0, 2, size=(30, 4)), 4)  # the left neighbour tells much
    return base[:20], base[20:]


def neighbour_shade(image, row, column, shades):
    return image[row, column] * shades // 5 if row >= 0 and column >= 0 else 0


def test_each_density_equals_brute_force():
    train, test = images()
    cases = {
        density.histogram_bits: lambda image, place: (),
        density.pixel_bits: lambda image, place: place,
        density.neighbour_bits: lambda image, place: (
            place,
            neighbour_shade(image, place[0], place[1] - 1, 2),
            neighbour_shade(image, place[0] - 1, place[1], 2),
        ),
    }
    for measure, context in cases.items():
        np.testing.assert_allclose(measure(train, test, 5), brute_force(train, test, 5, context), rtol=1e-12)


def test_the_neighbour_table_is_causal():
    train, test = images()
    changed = test.copy()
    changed[:, -1, -1] = (changed[:, -1, -1] + 1) % 5  # the last pixel is nobody's context
    difference = density.neighbour_bits(train, changed, 5) - density.neighbour_bits(train, test, 5)
    assert abs(difference) < math.log2(25) / 12  # one pixel of twelve, whose probability is at least 1 / (20 + 5)


def test_controls_of_digits_are_the_published_ones():
    # Figures of an independent implementation, given to two decimals.
    bits = [row["bits_per_dim"] for row in digits.density_controls().values()]
    np.testing.assert_allclose(bits[:4], [4.09, 2.98, 2.44, 2.27], atol=0.006)
    assert bits == sorted(bits, reverse=True)
