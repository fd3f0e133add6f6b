"""Videos read and written frame by frame, by OpenCV."""

import itertools
import math
from collections.abc import Iterable, Iterator
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Float, UInt8

from cvjax import runs
from cvjax.data.sources import check_utf8
from cvjax.errors import UserError

SUFFIXES = (".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg", ".wmv", ".3gp", ".ts")
CODECS = {".mp4": "mp4v", ".avi": "MJPG"}  # of written videos
LARGEST = 65535  # numerator and denominator of a frame rate in MPEG-4
SLOWEST = 0.01  # of OpenCV's frame rates
USUAL = 25.0  # frame rate of a video that does not say its own


def open_video(source: Path, setting: str = "--input") -> cv2.VideoCapture:
    """Opens a video for reading; errors name the flag `setting`."""
    check_utf8(source, setting, "OpenCV")
    capture = cv2.VideoCapture(str(source))
    if not capture.isOpened():
        raise UserError(f"{setting}={source} cannot be read as a video.")
    return capture


def read_frames(capture: cv2.VideoCapture) -> Iterator[Float[np.ndarray, "height width 3"]]:
    """Yields the frames of an open video, in [0, 1], and closes it."""
    there, frame = capture.read()
    while there:
        yield cv2.cvtColor(frame, cv2.COLOR_BGR2RGB).astype(np.float32) / 255
        there, frame = capture.read()
    capture.release()


def nearest_rate(rate: float) -> float:
    """Returns the nearest frame rate that OpenCV can write to MPEG-4, whose fractions of decimals have 16 bits."""
    if not (math.isfinite(rate) and rate > 0):
        return USUAL
    rates = (round(rate, digits) for digits in (3, 2, 1, 0) if rate * 10**digits <= LARGEST)
    return max(SLOWEST, next(rates, float(LARGEST)))


def check_output(source: Path, output: Path) -> None:
    """Raises a UserError if a video cannot be written to `output`; creates its folder."""
    check_utf8(output, "--output", "OpenCV")
    if output.suffix.lower() not in CODECS:
        raise UserError(f"--output={output}: a video's name must end in .mp4 or .avi.")
    if output.resolve() == source.resolve():
        raise UserError(f"--output={output} is the input, which would be overwritten.")
    runs.make_folder(output.parent, "--output")


def write_video(output: Path, frames: Iterable[UInt8[np.ndarray, "height width 3"]], rate: float) -> int:
    """Writes a video, .mp4 or .avi, and returns the number of frames; `rate` is from `nearest_rate`.

    Codecs want even sides, so the last row or column of odd ones is repeated. Raises a UserError if OpenCV cannot write
    it, or at the first frame of another size, which OpenCV would leave out; what came before is written.
    """
    frames = iter(frames)
    first = next(frames, None)
    if first is None:
        return 0
    height, width = first.shape[:2]
    size = (width + width % 2, height + height % 2)
    writer = cv2.VideoWriter(str(output), cv2.VideoWriter_fourcc(*CODECS[output.suffix.lower()]), rate, size)
    if not writer.isOpened():
        raise UserError(f"--output={output}: OpenCV cannot write a video of {size[0]}x{size[1]} at {rate:g} frames/s.")
    count = 0
    try:
        for frame in itertools.chain([first], frames):
            if frame.shape[:2] != (height, width):
                sizes = f"{frame.shape[0]}x{frame.shape[1]}, and those before it {height}x{width}"
                raise UserError(f"--output={output}: frame {count} is {sizes}; all frames of a video have one size.")
            even = cv2.copyMakeBorder(frame, 0, height % 2, 0, width % 2, cv2.BORDER_REPLICATE)
            writer.write(cv2.cvtColor(even, cv2.COLOR_RGB2BGR))
            count += 1
    finally:
        writer.release()
    return count
