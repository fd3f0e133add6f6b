"""The arithmetic coder gives back what it coded, and costs what the frequencies say."""

import numpy as np
import pytest
import scipy.stats

from cvjax.ops import arithmetic_coding
from cvjax.ops.arithmetic_coding import HEADER, INCREMENT, compress, decompress


def ideal_bits(numbers):
    """-log2 of the probability that tables which learn as they go give to the numbers, by brute force."""
    size, bits = numbers.max() - numbers.min() + 1, 0.0
    for column in (numbers - numbers.min()).T:
        counts = np.ones(size)
        for symbol in column:
            bits -= np.log2(counts[symbol] / counts.sum())
            counts[symbol] += INCREMENT
    return bits


@pytest.mark.parametrize("rows, columns, low, high", [(300, 4, -3, 4), (50, 1, -100, 100), (1, 1, 7, 8), (40, 3, 0, 1)])
def test_numbers_come_back_and_cost_what_their_tables_say(rows, columns, low, high):
    numbers = np.random.default_rng(rows).integers(low, high, (rows, columns))
    stream = compress(numbers)
    np.testing.assert_array_equal(decompress(stream), numbers)
    # 32-bit intervals lose next to nothing; the last two bits and the byte's rest are at most 10 bits.
    assert ideal_bits(numbers) - 1 <= 8 * (len(stream) - HEADER.size) <= 1.0001 * ideal_bits(numbers) + 10


def test_cost_is_within_one_per_cent_of_the_entropy():
    shares = np.array([0.5, 0.3, 0.1, 0.06, 0.04])
    numbers = np.random.default_rng(0).choice(5, size=(6000, 1), p=shares)
    entropy = scipy.stats.entropy(np.bincount(numbers[:, 0]) / len(numbers), base=2) * len(numbers)
    # Learning 4 free shares from 6,000 numbers costs about 4 / 2 log2(6,000) = 25 bits, and some more at first.
    assert entropy <= 8 * (len(compress(numbers)) - HEADER.size) <= 1.01 * entropy + 64


def test_columns_have_tables_of_their_own():
    generator = np.random.default_rng(1)
    apart = np.stack([generator.integers(0, 2, 1000), generator.integers(100, 102, 1000)], axis=1)
    # A bit each, and some 80 for each table to learn that 100 numbers between never come; one table would need 4,000.
    assert 8 * len(compress(apart)) < 1.15 * 2000 + 8 * HEADER.size


def test_certain_numbers_cost_nearly_nothing_and_none_nothing():
    assert len(compress(np.full((5000, 2), -9))) <= HEADER.size + 1
    same = np.zeros((5000, 1), int)
    same[17] = 30
    assert len(compress(same)) < HEADER.size + 25
    np.testing.assert_array_equal(decompress(compress(same)), same)
    ends = np.array([[-32768], [32767]])
    np.testing.assert_array_equal(decompress(compress(ends)), ends)
    empty = np.zeros((0, 3), np.int32)
    np.testing.assert_array_equal(decompress(compress(empty)), empty)


def test_counts_are_halved_at_the_limit_and_streams_still_decode(monkeypatch):
    numbers = np.random.default_rng(2).binomial(20, 0.3, (2000, 2))
    before = compress(numbers)
    monkeypatch.setattr(arithmetic_coding, "LIMIT", 500)
    stream = compress(numbers)
    assert stream != before
    np.testing.assert_array_equal(decompress(stream), numbers)
