"""An adaptive arithmetic coder: whole numbers to bytes and back, at the price that their frequencies allow.

Witten, Neal & Cleary, Arithmetic Coding for Data Compression, 1987. Each column of the numbers is a context: it has a
table of counts of its own, which starts equal and learns from what has been coded, so that no table is sent.
"""

import itertools
import struct
from collections.abc import Iterable, Iterator

import numpy as np
from jaxtyping import Int

HEADER = struct.Struct("<IHhH")  # rows, columns, lowest number, how many numbers follow it: 10 bytes
INCREMENT = 8  # what a number seen adds to its count, which starts at 1: so one never seen costs the others little
BITS = 32
HALF, QUARTER, TOP = 1 << (BITS - 1), 1 << (BITS - 2), (1 << BITS) - 1
LIMIT = 1 << 24  # of a table's total, at which its counts are halved: far below QUARTER, so that no interval is empty


class _Table:
    """The counts of one context."""

    def __init__(self, size: int):
        self.counts, self.total = [1] * size, size

    def interval(self, symbol: int) -> tuple[int, int]:
        below = sum(self.counts[:symbol])
        return below, below + self.counts[symbol]

    def find(self, position: int) -> int:
        return next(i for i, above in enumerate(itertools.accumulate(self.counts)) if above > position)

    def learn(self, symbol: int) -> None:
        self.counts[symbol] += INCREMENT
        self.total += INCREMENT
        if self.total > LIMIT:
            self.counts = [(count + 1) // 2 for count in self.counts]
            self.total = sum(self.counts)


def compress(numbers: Int[np.ndarray, "rows columns"]) -> bytes:
    """Codes whole numbers.

    Args:
      numbers: from -32,768 to 32,767.

    Returns:
      The bytes, 10 of them a header that says the sizes and the range.
    """
    rows, columns = numbers.shape
    lowest, highest = (int(numbers.min()), int(numbers.max())) if numbers.size else (0, 0)
    size = highest - lowest + 1
    bits = _encode((numbers - lowest).tolist(), [_Table(size) for _ in range(columns)])
    return HEADER.pack(rows, columns, lowest, size - 1) + np.packbits(np.fromiter(bits, np.uint8)).tobytes()


def decompress(stream: bytes) -> Int[np.ndarray, "rows columns"]:
    """Decodes what `compress` made.

    Args:
      stream: the bytes.

    Returns:
      The numbers, int64.
    """
    rows, columns, lowest, more = HEADER.unpack_from(stream)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8, offset=HEADER.size)).tolist()
    symbols = _decode(itertools.chain(bits, itertools.repeat(0)), [_Table(more + 1) for _ in range(columns)], rows)
    return np.fromiter(symbols, np.int64, rows * columns).reshape(rows, columns) + lowest


def _encode(rows: Iterable[Iterable[int]], tables: list[_Table]) -> Iterator[int]:
    """Narrows [low, high] symbol by symbol, and yields the bits that are settled."""
    low, high, pending = 0, TOP, 0
    for row in rows:
        for table, symbol in zip(tables, row, strict=True):
            span, (below, above) = high - low + 1, table.interval(symbol)
            low, high = low + span * below // table.total, low + span * above // table.total - 1
            table.learn(symbol)
            while (shift := _settled(low, high)) is not None:
                if shift == QUARTER:  # the two straddle the middle: the next bit will say on which side
                    pending += 1
                else:
                    yield shift // HALF
                    yield from itertools.repeat(1 - shift // HALF, pending)
                    pending = 0
                low, high = 2 * (low - shift), 2 * (high - shift) + 1
    yield int(low >= QUARTER)
    yield from itertools.repeat(int(low < QUARTER), pending + 1)


def _decode(bits: Iterator[int], tables: list[_Table], rows: int) -> Iterator[int]:
    """Follows `_encode`: the value that the bits spell tells which symbol's interval it lies in."""
    low, high, value = 0, TOP, 0
    for bit in itertools.islice(bits, BITS):
        value = 2 * value + bit
    for table in itertools.chain.from_iterable(itertools.repeat(tables, rows)):
        span = high - low + 1
        symbol = table.find(((value - low + 1) * table.total - 1) // span)
        below, above = table.interval(symbol)
        low, high = low + span * below // table.total, low + span * above // table.total - 1
        table.learn(symbol)
        while (shift := _settled(low, high)) is not None:
            low, high = 2 * (low - shift), 2 * (high - shift) + 1
            value = 2 * (value - shift) + next(bits)
        yield symbol


def _settled(low: int, high: int) -> int | None:
    """What to subtract before an interval is doubled; None where it is wide enough."""
    if high < HALF:
        return 0
    if low >= HALF:
        return HALF
    return QUARTER if low >= QUARTER and high < HALF + QUARTER else None
