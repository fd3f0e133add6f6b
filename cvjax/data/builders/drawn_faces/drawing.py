"""Draws faces: curves and landmarks of many at once, each painted, then lit in front of its photograph."""

import functools
from collections.abc import Iterator, Mapping

import cv2
import numpy as np
from jaxtyping import Float32, UInt8

from cvjax.data.builders import photos
from cvjax.data.builders.drawn_faces import camera, geometry
from cvjax.data.builders.drawn_faces.painting import FINE, NEUTRAL, SHIFT, Face
from cvjax.data.builders.drawn_faces.parameters import EXPRESSION, IDENTITY, PHOTOGRAPHS, SCENE, Faces
from cvjax.errors import UserError

SIZES = (32, 256)
CHUNK = 32  # faces whose curves are computed together
PLAIN = 0.6  # grey level behind a face without a photograph

# In the order of the 68 landmarks of iBUG's 300-W, and both pupils. Left and right are those of the picture.
LANDMARKS = 70
EXCHANGE = (  # by a mirror, as for `data.points`
    *((point, 16 - point) for point in range(8)),
    *((point, 43 - point) for point in range(17, 22)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
    (68, 69),
)

Pixels = UInt8[np.ndarray, "faces size size 3"]
Places = Float32[np.ndarray, "faces _ 3"]


def draw(
    faces: Faces, size: int = 64
) -> tuple[Pixels, Float32[np.ndarray, "faces 70 2"], UInt8[np.ndarray, "faces size size"]]:
    """Draws faces in pictures of `size` by `size` pixels, 32 to 256; raises a UserError for another size.

    Glasses are not a region: their pixels are of what is behind them. A beard is hair, stubble is skin. Ears, neck and
    collar are skin, clothes are background.

    Returns:
      The pictures, the landmarks as x and y in pixels, where (0.5, 0.5) is the middle of the first pixel, and the
      region of each pixel, an index of `REGIONS`. Landmarks are fixed to the head, hidden ones included.
    """
    check_size(size)
    images, regions = np.empty((len(faces), size, size, 3), np.uint8), np.empty((len(faces), size, size), np.uint8)
    marks = np.empty((len(faces), LANDMARKS, 2), np.float32)
    for first in range(0, len(faces), CHUNK):
        rows = slice(first, first + CHUNK)
        part = faces[rows]
        points = camera.project(part, geometry.curves(part), size)
        marks[rows] = landmarks(points)
        layers = np.empty((len(part), size, size, 5), np.uint8)
        for row, face in enumerate(_faces(part, points, size)):
            face.paint()
            layers[row], regions[first + row] = face.shrunk(size)
        images[rows] = lit(part, layers)
    return images, marks, regions


def check_size(size: int, where: str = "drawn faces") -> None:
    """Raises a UserError for a size that cannot be drawn."""
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"{where}: {size} pixels; pictures from {SIZES[0]} to {SIZES[1]} pixels wide can be drawn")


def landmarks(points: Mapping[str, Places]) -> Float32[np.ndarray, "faces 70 2"]:
    """Returns the landmarks from projected curves."""
    lips = points["top"][:, [0, 2, 4, 6, 8, 10, 12]], points["bottom"][:, [10, 8, 6, 4, 2]]
    inner = points["inner_top"][:, [1, 4, 6, 8, 11]], points["inner_bottom"][:, [8, 6, 4]]
    found = [
        points["jaw"],
        _middle(points["brow0"])[:, [11, 9, 6, 3, 1]],
        _middle(points["brow1"])[:, [1, 3, 6, 9, 11]],
        points["bridge"],
        *(points["wing0"][:, 1:], points["nostril0"], points["base"], points["nostril1"], points["wing1"][:, 1:]),
        points["eye0"][:, [12, 9, 4, 0, 22, 16]],
        points["eye1"][:, [0, 4, 9, 12, 16, 22]],
        *(*lips, *inner, points["pupil0"], points["pupil1"]),
    ]
    return np.concatenate(found, 1)[..., :2]


def _middle(outline: Places) -> Places:
    """Returns the line between the two halves of an outline."""
    half = outline.shape[1] // 2
    return (outline[:, :half] + outline[:, half:][:, ::-1]) / 2


def _faces(faces: Faces, points: Mapping[str, Places], size: int) -> Iterator[Face]:
    """Yields the faces with all that painting takes."""
    roll = faces.pose[:, 2:, None]
    axis = np.concatenate([np.cos(roll), np.sin(roll)], -1)
    opening, middle = points["opening_of_hair"], points["head"][..., :2].mean(1, keepdims=True)
    # What is behind the outline must not fold back into the face.
    side = np.sign(((opening[..., :2] - middle) * axis).sum(-1, keepdims=True))
    behind = np.maximum(0, -opening[..., 2:]) * size * 0.6
    flat = {**points, "opening_of_hair": opening[..., :2] + side * behind * axis, **camera.body(faces, size)}
    together = np.concatenate([curve[..., :2] for curve in flat.values()], 1)
    fixed = np.round((together * FINE - 0.5) * 2**SHIFT).astype(np.int32)
    ends = np.cumsum([curve.shape[1] for curve in flat.values()]).tolist()
    slices = [slice(*pair) for pair in zip([0, *ends], ends, strict=False)]
    numbers, colours = _numbers(faces, points)
    for row in range(len(faces)):
        curves = {name: fixed[row, part] for name, part in zip(flat, slices, strict=True)}
        value = {name: column[row] for name, column in numbers.items()}
        yield Face(curves, value, {name: colour[row] for name, colour in colours.items()}, size)


def _numbers(
    faces: Faces, points: Mapping[str, Places]
) -> tuple[dict[str, list[float]], dict[str, Float32[np.ndarray, "faces 3"]]]:
    """Returns lists of all parameters that are single numbers, with others that painting takes; and the colours."""
    found = {name: faces.trait(name) for name in (*IDENTITY, *SCENE, *EXPRESSION)}
    colours = {name: value for name, value in found.items() if value.shape[1] == 3}
    single = {name: value[:, 0] for name, value in found.items() if value.shape[1] == 1}
    radii = faces.trait("marks").reshape(len(faces), -1, 3)[..., 2]
    single |= {f"mark{number}": radii[:, number] for number in range(radii.shape[1])}
    single |= {f"ear{side}": points[f"ear{side}"][..., 2].mean(1) for side in (0, 1)}
    single |= {"age": faces.age[:, 0], "glasses": faces.glasses[:, 0], "beard": faces.beard[:, 0]}
    single |= {"ageing": geometry.ageing(faces)[:, 0], "light_x": light(faces)[:, 0], "yaw": faces.pose[:, 0]}
    return {name: value.tolist() for name, value in single.items()}, colours


def light(faces: Faces) -> Float32[np.ndarray, "faces 3"]:
    """Returns unit vectors to where the light comes from; y goes down."""
    azimuth, elevation = faces.trait("azimuth"), faces.trait("elevation")
    parts = np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)
    return np.concatenate(parts, 1)


def lit(faces: Faces, layers: UInt8[np.ndarray, "faces size size 5"]) -> Pixels:
    """Lights the painted layers as if they were on an ellipsoid, and puts them in front of the photographs."""
    size = layers.shape[1]
    scale = (camera.HEIGHT * faces.trait("scale") * size)[..., None]
    x, y = (size * (0.5 + faces.trait(name))[..., None] for name in ("x", "y"))
    middles = np.arange(size, dtype=np.float32) + np.float32(0.5)
    across, down = middles[None, None, :] - x, middles[None, :, None] - y
    cos, sin = (function(faces.pose[:, 2:, None]) for function in (np.cos, np.sin))
    normal_x = np.clip((across * cos + down * sin) / (0.95 * scale), -1, 1)
    normal_y = np.clip((down * cos - across * sin) / (1.25 * scale), -1, 1)
    normal_z = np.sqrt(np.clip(1 - normal_x**2 - normal_y**2, 0.02, 1))
    towards = light(faces)[:, :, None, None]
    met = np.maximum(0, normal_x * towards[:, 0] + normal_y * towards[:, 1] + normal_z * towards[:, 2])
    factor = faces.trait("ambient")[..., None] + faces.trait("strength")[..., None] * met
    factor *= layers[..., 3] / np.float32(NEUTRAL * 255)
    behind = np.stack([photograph(faces[row : row + 1], size) for row in range(len(faces))])
    picture = layers[..., :3] * factor[..., None]
    picture += (1 - layers[..., 4:] / np.float32(255)) * behind
    picture *= faces.trait("tint")[:, None, None]
    return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def photograph(face: Faces, size: int) -> Float32[np.ndarray, "size size 3"]:
    """Returns the square of a photograph that is behind a face, plain grey if its side is 0."""
    side, left, top = (face.number(name) for name in ("side", "left", "top"))
    if side == 0:
        return np.full((size, size, 3), PLAIN, np.float32)
    picture = _shrunk(PHOTOGRAPHS[int(face.number("photograph"))], size)
    height, width = picture.shape[:2]
    length = max(8, int(min(height, width) * side))
    left, top = int(left * (width - length)), int(top * (height - length))
    square = picture[top : top + length, left : left + length]
    square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if length > size else cv2.INTER_LINEAR)
    return (square[:, ::-1] if face.number("mirrored") > 0.5 else square) / np.float32(255)


@functools.lru_cache(maxsize=64)
def _shrunk(name: str, size: int) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a photograph, shrunk to twice the size of a picture."""
    picture = photos.read(name)
    share = min(1, 2 * size / min(picture.shape[:2]))
    return cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)
