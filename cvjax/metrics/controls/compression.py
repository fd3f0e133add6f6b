"""Rate and distortion: the bytes of images as entropy-coded codes of a network, and as JPEG.

All images of a set are one stream: the header of a JPEG file would outweigh a small image, so JPEG gets them as one
sheet. Rates are of whole streams with their headers, without the decoder itself.
"""

import io
import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import scipy.special
from jaxtyping import Float, Int
from PIL import Image

from cvjax.metrics.controls.denoising import psnr

Images = Float[np.ndarray, "batch height width channels"]
QUALITIES = (1, 5, 10, 15, 20, 30)
HEADER = 14  # bytes: rows 4, columns 2, lowest number 2, range of the numbers 2, the quantiser's step 4
INCREMENT = 8  # added to the count of a number that was seen; counts start at 1


class Point(NamedTuple):
    """One point of a rate-distortion curve.

    Attributes:
      size, header: bytes of the stream, its header included, and of the header.
      psnr: of all images, in dB.
    """

    size: int
    header: int
    psnr: float


def code_length(numbers: Int[np.ndarray, "rows columns"]) -> float:
    """Computes the ideal length of an adaptive entropy code: -log2 of the probability of each number given those above.

    Each column has its own counts of the numbers, which start equal and learn from the rows before, so no table is
    sent. An arithmetic coder (Witten, Neal & Cleary, Arithmetic Coding for Data Compression, 1987) comes within a few
    bits of this. Returns the length in bits.
    """
    values = np.arange(numbers.min(), numbers.max() + 1)
    counts = (numbers[:, :, None] == values).sum(axis=0)  # [columns, values]
    start = 1 / INCREMENT  # in units of an increment; the product over rows is a Dirichlet-multinomial probability
    log_gamma, total = scipy.special.gammaln, start * len(values)
    seen = (log_gamma(start + counts) - log_gamma(start)).sum()
    rows = len(counts) * (log_gamma(total + len(numbers)) - log_gamma(total))
    return float((rows - seen) / math.log(2))


def code_points(
    images: Images,
    levels: Int[np.ndarray, "batch steps codes"],
    decoded: Float[np.ndarray, "batch steps height width channels"],
) -> list[Point]:
    """Returns the rate and distortion of codes at each step of quantisation; `decoded` are their images."""
    points = []
    for step in range(levels.shape[1]):
        size = HEADER + math.ceil(code_length(levels[:, step].astype(np.int64)) / 8)
        points.append(Point(size, HEADER, psnr(images, decoded[:, step])))
    return points


def jpeg_points(images: Images, qualities: Sequence[int] = QUALITIES) -> list[Point]:
    """Returns the rate and distortion of JPEG at each quality, on one sheet of all images."""
    sheet = np.round(255 * lay_out(images)).astype(np.uint8)
    picture, points = Image.fromarray(sheet[..., 0] if sheet.shape[-1] == 1 else sheet), []
    for quality in qualities:
        stream = io.BytesIO()
        picture.save(stream, "jpeg", quality=quality, optimize=True)
        decoded = np.asarray(Image.open(stream), np.float64).reshape(sheet.shape) / 255
        found = psnr(lay_out(images)[None], decoded[None])
        points.append(Point(stream.tell(), jpeg_header(stream.getvalue()), found))
    return points


def jpeg_header(stream: bytes) -> int:
    """Returns the number of bytes in a JPEG file of one scan that are not its entropy-coded data."""
    position = 2  # behind the start marker; then segments: marker, length, content
    while stream[position : position + 2] != b"\xff\xda":
        position += 2 + int.from_bytes(stream[position + 2 : position + 4], "big")
    return position + 2 + int.from_bytes(stream[position + 2 : position + 4], "big") + 2


def lay_out(images: Images) -> Float[np.ndarray, "rows columns channels"]:
    """Returns images without gaps on the sheet nearest to a square that they fill."""
    count, height, width, channels = images.shape
    rows = max(n for n in range(1, math.isqrt(count) + 1) if count % n == 0)
    return images.reshape(rows, -1, height, width, channels).swapaxes(1, 2).reshape(rows * height, -1, channels)


def gain(points: Sequence[Point], rivals: Sequence[Point]) -> float:
    """Returns the mean gain in PSNR of one curve over another, its rival, at the same bytes, in dB.

    Each rival's point is compared with the best point of its bytes or fewer (the smallest, if all are larger).
    """
    cheapest = min(points, key=lambda point: point.size)
    best = [max([p for p in points if p.size <= rival.size] or [cheapest], key=lambda p: p.psnr) for rival in rivals]
    return float(np.mean([mine.psnr - rival.psnr for mine, rival in zip(best, rivals, strict=True)]))
