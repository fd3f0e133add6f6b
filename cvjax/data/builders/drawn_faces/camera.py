"""Turns heads and places their curves in a picture."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Float, Float32

from cvjax.data.builders.drawn_faces.geometry import ageing
from cvjax.data.builders.drawn_faces.parameters import Faces

HEIGHT = 0.36  # of half a head, as a share of the picture's side, at scale 1
CENTRE = 0.02  # by which the middle of a head is below the picture's
PERSPECTIVE = 0.16  # by which what is one unit nearer is larger
NECK = 0.25  # the axes of rotation are this far behind the middle of the head


def project(
    faces: Faces, points: Mapping[str, np.ndarray], size: int
) -> dict[str, Float32[np.ndarray, "faces points 3"]]:
    """Opens the mouths and turns the heads.

    Returns x and y of all points in pictures of `size` pixels, and z as it is on the turned head.
    """
    together = np.concatenate(list(points.values()), 1).astype(np.float32)
    together = turned(faces, deformed(faces, together))
    nearer = 1 / (1 - PERSPECTIVE * together[..., 2:])
    scale, middle = _camera(faces)
    places = np.concatenate([(scale * nearer * together[..., :2] + middle) * size, together[..., 2:]], -1)
    ends = np.cumsum([curve.shape[1] for curve in points.values()])[:-1]
    return dict(zip(points, np.split(places.astype(np.float32), ends, axis=1), strict=True))


def deformed(faces: Faces, points: Float32[np.ndarray, "faces points 3"]) -> Float32[np.ndarray, "faces points 3"]:
    """Stretches faces to their length, lowers the chins of open mouths, and lets old cheeks hang a little."""
    x, y, z = np.moveaxis(points, -1, 0)
    falling = np.clip((y - 0.5) / 0.4, 0, 1) * (z > -0.4)
    sag = 0.03 * ageing(faces) * np.exp(-(((np.abs(x) - 0.4) / 0.15) ** 2) - ((y - 0.7) / 0.15) ** 2)
    y = y * np.where(y > 0, 1 + 0.1 * faces.trait("face_length"), 1) + sag + 0.09 * faces.trait("open") * falling
    return np.stack([x, y, z], -1)


def turned(faces: Faces, points: Float32[np.ndarray, "faces points 3"]) -> Float32[np.ndarray, "faces points 3"]:
    """Turns heads by their yaw, pitch and roll about an axis in the neck."""
    yaw, pitch, roll = (faces.pose[:, axis : axis + 1] for axis in range(3))
    x, y, z = np.moveaxis(points, -1, 0)
    z = z + NECK
    x, z = x * np.cos(yaw) + z * np.sin(yaw), z * np.cos(yaw) - x * np.sin(yaw)
    y, z = y * np.cos(pitch) - z * np.sin(pitch), z * np.cos(pitch) + y * np.sin(pitch)
    x, y = x * np.cos(roll) - y * np.sin(roll), y * np.cos(roll) + x * np.sin(roll)
    return np.stack([x - NECK * np.sin(yaw), y, z - NECK], -1)


def body(faces: Faces, size: int) -> dict[str, Float[np.ndarray, "faces points 2"]]:
    """Returns the places in a picture of clothes, collar and neck, which lean with the roll and turn no further."""
    wide = 0.40 + 0.05 * faces.trait("neck_width")
    turn = np.linspace(-np.pi, 0, 16)[None] + 0 * wide
    neck_y = np.array([[0.4, 0.4, 1.25, 1.6, 1.6, 1.25]]) + 0 * wide
    neck_x = wide * np.array([[-1, 1, 1, 1.5, -1.5, -1]]) + 0.35 * np.sin(faces.pose[:, 2:]) * (1.4 - neck_y).clip(0)
    shapes = {
        "torso": (1.5 * np.cos(turn), 2.1 + 0.85 * np.sin(turn)),
        "collar": (0.62 * np.cos(turn), 1.3 - 0.34 * np.sin(turn)),
        "neck": (neck_x, neck_y),
    }
    scale, middle = _camera(faces)
    return {name: (np.stack(shape, -1) * scale + middle) * size for name, shape in shapes.items()}


def _camera(faces: Faces) -> tuple[Float32[np.ndarray, "faces 1 1"], Float32[np.ndarray, "faces 1 2"]]:
    """Returns the scale and the middle of heads, in shares of a picture's side."""
    middle = np.stack([faces.trait("x"), faces.trait("y") + CENTRE], -1) + 0.5
    return HEIGHT * faces.trait("scale")[:, None], middle
