"""Temporal stability of a film that was made of another one: the warping error along the motion of the latter.

Each frame is compared with the one before it, moved by the optical flow of the input film (Lai et al., Learning Blind
Video Temporal Consistency, 2018). Only pixels count whose flow there and back agrees, and that are not at the border of
a motion: the tests of Sundaram, Brox & Keutzer, Dense Point Trajectories by GPU-accelerated Large Displacement Optical
Flow, 2010, as Ruder, Dosovitskiy & Brox use them in Artistic Style Transfer for Videos, 2016. The flow is OpenCV's
DIS (Kroeger et al., 2016).

The input's own error is what noise and interpolation cost. A film without contrast has none, and a smooth one less than
its input: read the error beside the pictures.
"""

from collections.abc import Iterable, Mapping
from typing import NamedTuple

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32

from cvjax.errors import UserError, number_of

Frame = Float[np.ndarray, "height width channels"]
Flow = Float32[np.ndarray, "height width 2"]
Mask = Bool[np.ndarray, "height width"]

SMALLEST = 16  # pixels of the shorter side: OpenCV's flow starts from patches of 8 at half the size
SLACK = 1.5  # pixels at the border that count for nothing, where a bilinear look-up may be half outside


class Stability(NamedTuple):
    """What `warping_errors` measures.

    Attributes:
      errors: of each film, the mean absolute difference in [0, 1] between a frame and the one before it, moved.
      changes: of each film, the same without moving: what the flow explains is the difference.
      share: of the pixels, that could be followed.
      pairs: number of pairs of frames.
    """

    errors: dict[str, float]
    changes: dict[str, float]
    share: float
    pairs: int


def flow(start: Frame, end: Frame) -> Flow:
    """Returns the motion from one frame to another: x and y, in pixels, of where each pixel of the first one is found.

    Raises a UserError if the frames are too small.
    """
    if min(start.shape[:2]) < SMALLEST:
        size = "x".join(map(str, start.shape[:2]))
        raise UserError(f"optical flow needs frames of at least {SMALLEST}x{SMALLEST} pixels; these have {size}.")
    method = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_MEDIUM)  # it remembers: a new one for each pair
    return method.calc(_grey(start), _grey(end), None)


def warp(image: Frame, motion: Flow) -> Frame:
    """Returns an image looked up, bilinearly, at the places to which motion leads; beyond its border, the border's."""
    columns, rows = _places(motion)
    moved = cv2.remap(image.astype(np.float32), columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    return moved.reshape(image.shape)


def followed(backward: Flow, forward: Flow) -> Mask:
    """Returns the pixels of a frame whose motion can be trusted.

    Args:
      backward: the motion from the frame to the one before it.
      forward: the motion from the one before it to the frame.
    """
    height, width = backward.shape[:2]
    columns, rows = _places(backward)
    inside = (columns >= SLACK) & (columns <= width - 1 - SLACK) & (rows >= SLACK) & (rows <= height - 1 - SLACK)
    back = warp(forward, backward)
    apart = np.square(backward + back).sum(-1)
    agree = apart < 0.01 * (np.square(backward).sum(-1) + np.square(back).sum(-1)) + 0.5
    slopes = sum(np.square(slope).sum(-1) for slope in np.gradient(backward, axis=(0, 1)))
    smooth = slopes < 0.01 * np.square(backward).sum(-1) + 0.002
    return inside & agree & smooth


def warping_errors(films: Iterable[Mapping[str, Frame]], of: str = "input") -> Stability:
    """Measures films side by side, along the motion in one of them.

    Two frames at a time are in memory.

    Args:
      films: for each moment, the frames of all films, in [0, 1] and of one size.
      of: the film whose motion is estimated.

    Returns:
      The figures; means over the pixels that can be followed, then over the pairs of frames that have any.

    Raises:
      UserError: There are fewer than two frames, sizes differ, or nothing can be followed.
    """
    before, errors, changes, shares = None, [], [], []
    for moment, frames in enumerate(films):
        _check_sizes(frames, (before or frames)[of].shape[:2], moment)
        if before is not None:
            backward = flow(frames[of], before[of])
            mask = followed(backward, flow(before[of], frames[of]))
            shares.append(mask.mean())
            if mask.any():
                moved = {name: warp(frame, backward) for name, frame in before.items()}
                errors.append({name: np.abs(frame - moved[name])[mask].mean() for name, frame in frames.items()})
                changes.append({name: np.abs(frame - before[name])[mask].mean() for name, frame in frames.items()})
        before = frames
    if not shares:
        raise UserError(f"temporal stability needs two frames or more; there are {0 if before is None else 1}.")
    if not errors:
        raise UserError(f"no motion can be followed in any of {number_of(len(shares), 'pair')} of frames.")
    means = ({name: float(np.mean([one[name] for one in rows])) for name in rows[0]} for rows in (errors, changes))
    return Stability(*means, float(np.mean(shares)), len(shares))


def _check_sizes(frames: Mapping[str, np.ndarray], wanted: tuple[int, ...], moment: int) -> None:
    for name, frame in frames.items():
        if frame.shape[:2] != wanted:
            sizes = ["x".join(map(str, shape)) for shape in (frame.shape[:2], wanted)]
            raise UserError(f"frame {moment} of the film {name!r} is {sizes[0]}; {sizes[1]} is expected.")


def _places(motion: Flow) -> tuple[Float32[np.ndarray, "height width"], Float32[np.ndarray, "height width"]]:
    """Returns column and row to which the motion leads from each pixel."""
    height, width = motion.shape[:2]
    rows, columns = np.mgrid[:height, :width].astype(np.float32)
    return columns + motion[..., 0], rows + motion[..., 1]


def _grey(frame: Frame) -> np.ndarray:
    levels = np.round(np.clip(frame, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(levels, cv2.COLOR_RGB2GRAY) if levels.shape[2] == 3 else levels[..., 0]
