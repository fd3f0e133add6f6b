"""Composes scenes of people: places, depths, light, masks and the visibility of joints."""

import dataclasses
from typing import Any

import cv2
import numpy as np
from jaxtyping import Float32, Int, UInt8

from cvjax.data import people
from cvjax.data.builders.drawn_people.figure import sample_figure
from cvjax.data.builders.drawn_people.painting import FINE, Painted, paint, visibility

ATTEMPTS = 24  # places tried for a person, who is left out if none will do
LIGHT = 0.25  # most by which a person is lighter or darker on one side than in the middle


@dataclasses.dataclass(frozen=True)
class Crowd:
    """Ranges of the random properties of a scene of `size` by `size` pixels.

    Attributes:
      most: the number of people is drawn uniformly from 1 to this; people without room are left out.
      shortest, tallest: range of the height of a person who stands upright, as a share of the scene; the more people,
        the shorter the tallest.
      seen: least share of a person that no other one hides.
      inside: least share of a person inside the scene.
      facing: share of people who face the camera more or less; the others stand any way round.
    """

    size: int = 64
    most: int = 4
    shortest: float = 0.5
    tallest: float = 1.0
    seen: float = 0.4
    inside: float = 0.6
    facing: float = 0.4


def compose(generator: np.random.Generator, canvas: Float32[np.ndarray, "size size 3"], crowd: Crowd) -> dict[str, Any]:
    """Puts random people on a background, which is painted over.

    Returns `image` uint8; `instances` uint8, 0 for background and 1 + the person's row elsewhere; and `objects`, a list
    of `box` and `keypoints`, in pixels, `mask`, `area` and `pose`.
    """
    count = int(generator.integers(1, crowd.most + 1))
    tallest = crowd.tallest - 0.08 * (count - 1)
    placed, instances = [], np.zeros((crowd.size, crowd.size), np.uint8)
    for _ in range(count):
        height = crowd.size * generator.uniform(crowd.shortest, tallest)
        person = paint(sample_figure(generator, facing=crowd.facing), height)
        if _place(generator, person, [other.mask.sum() for other in placed], instances, crowd):
            placed.append(person)
            scene, own = windows(person, crowd.size)
            instances[scene][person.mask[own]] = len(placed)
    fine = np.zeros((crowd.size * FINE, crowd.size * FINE), np.uint8)  # whose pixel it is
    parts, colours = np.zeros_like(fine), np.zeros((*fine.shape, 3), np.uint8)
    for number, person in enumerate(placed, 1):
        scene, own = windows(person, crowd.size, FINE)
        drawn = person.parts[own] > 0
        fine[scene][drawn] = number
        parts[scene][drawn] = person.parts[own][drawn]
        cv2.copyTo(_lit(generator, person)[own], drawn.view(np.uint8), colours[scene])
    covered = (fine > 0).view(np.uint8) * np.uint8(255)
    layer = cv2.resize(cv2.merge([colours, covered]), (crowd.size, crowd.size), interpolation=cv2.INTER_AREA)
    canvas *= 1 - layer[..., 3:] / np.float32(255)
    canvas += layer[..., :3] / np.float32(255)
    objects = []
    for number, person in enumerate(placed, 1):
        mask = instances == number
        objects.append(
            {
                "box": _box(person, crowd.size),
                "keypoints": _keypoints(person, np.where(fine == number, parts, 0)),
                "mask": mask,
                "area": float(mask.sum()),
                "pose": person.pose,
            }
        )
    return {"image": np.round(np.clip(canvas, 0, 1) * 255).astype(np.uint8), "instances": instances, "objects": objects}


def windows(person: Painted, size: int, fine: int = 1) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
    """Returns the part of a scene that a person's canvas covers, and the part of the canvas inside the scene."""
    scene, own = [], []
    for start, length in zip((person.top, person.left), person.parts.shape, strict=True):
        start, length = start * fine, length * fine // FINE
        first, last = max(start, 0), max(0, min(start + length, size * fine))
        scene.append(slice(first, max(first, last)))
        own.append(slice(first - start, max(first, last) - start))
    return tuple(scene), tuple(own)


def _place(
    generator: np.random.Generator,
    person: Painted,
    whole: list[Any],
    instances: UInt8[np.ndarray, "size size"],
    crowd: Crowd,
) -> bool:
    """Finds a place where enough is seen of a person and of those already there, of `whole` pixels each."""
    size, mask = len(instances), person.mask
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    for _ in range(ATTEMPTS):
        middle = generator.uniform(0, size, 2)
        person.top = int(middle[0] - (rows[0] + rows[-1]) / 2)
        person.left = int(middle[1] - (columns[0] + columns[-1]) / 2)
        scene, own = windows(person, size)
        inside = mask[own]
        left = instances.copy()
        left[scene][inside] = 0
        seen = np.bincount(left.ravel(), minlength=len(whole) + 1)[1:]
        if inside.sum() >= crowd.inside * mask.sum() and (seen >= np.multiply(crowd.seen, whole)).all():
            return True
    return False


def _box(person: Painted, size: int) -> Int[np.ndarray, "4"]:
    """Returns the tight box around what of a person is inside of the scene, hidden parts included."""
    scene, own = windows(person, size)
    rows, columns = (np.flatnonzero(person.mask[own].any(axis)) for axis in (1, 0))
    box = np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1])
    return box + [scene[1].start, scene[0].start] * 2


def _keypoints(person: Painted, parts: UInt8[np.ndarray, "rows columns"]) -> Float32[np.ndarray, "17 3"]:
    """Returns x, y and visibility of joints in a scene; those outside of it are 0."""
    joints = person.joints + np.float32([person.left, person.top])
    seen = visibility(joints, person.turned, parts)
    joints[seen == people.ABSENT] = 0
    return np.concatenate([joints, seen[:, None].astype(np.float32)], 1)


def _lit(generator: np.random.Generator, person: Painted) -> UInt8[np.ndarray, "rows columns 3"]:
    """Returns a person's colours in light from one side."""
    slope = np.linspace(-1, 1, person.parts.shape[1], dtype=np.float32) * np.float32(generator.uniform(-LIGHT, LIGHT))
    return np.clip(person.colours * (1 + slope)[:, None], 0, 255).astype(np.uint8)
