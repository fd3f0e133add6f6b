"""The parameters of drawn faces, and how identities and views of them are drawn at random."""

import dataclasses
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, Integer, Shaped

from cvjax.data.builders import photos
from cvjax.errors import UserError

SHAPE = (  # traits in [-1, 1]; more is wider, longer, larger, higher or further out
    *("head_width", "jaw_width", "chin_width", "face_length", "cheekbones", "forehead"),
    *("eye_spacing", "eye_width", "eye_height", "eye_tilt", "eye_level", "lid"),
    *("brow_height", "brow_thickness", "brow_arch", "brow_tilt", "brow_length"),
    *("nose_length", "nose_width", "nose_depth", "nose_bridge"),
    *("mouth_width", "upper_lip", "lower_lip", "mouth_level", "cupids_bow"),
    *("ear_size", "ear_angle", "neck_width"),
)
HAIR = ("volume", "length", "fringe", "parting", "curl", "recession")
MARKS = 3  # moles of a face; those of radius 0 are not there
BEARDS = ("none", "stubble", "full", "goatee", "moustache")
EXPRESSION = ("smile", "open", "brows", "frown", "squint", "gaze_x", "gaze_y")
PHOTOGRAPHS = (*photos.TRAIN, *photos.TEST)


def _columns(*parts: str | tuple[str, int]) -> Mapping[str, slice]:
    """Numbers the columns of an array by the names and widths of its parts."""
    columns, start = {}, 0
    for part in parts:
        name, width = part if isinstance(part, tuple) else (part, 1)
        columns[name] = slice(start, start + width)
        start += width
    return MappingProxyType(columns)


IDENTITY = _columns(
    *SHAPE,
    *HAIR,
    *(("skin", 3), ("hair_colour", 3), ("eye_colour", 3), ("marks", 3 * MARKS)),
    *("freckles", "beard_style", "lens_shape", "lens_width", ("frame_colour", 3)),
)
SCENE = _columns(
    *("azimuth", "elevation", "strength", "ambient", ("tint", 3), "x", "y", "scale", ("clothes", 3)),
    *("photograph", "left", "top", "side", "mirrored"),
)
WIDTHS = MappingProxyType(
    {
        "identity": IDENTITY["frame_colour"].stop,
        "pose": 3,
        "expression": len(EXPRESSION),
        "age": 1,
        "glasses": 1,
        "beard": 1,
        "scene": SCENE["mirrored"].stop,
    }
)

# Styles of hair: volume, length, fringe, parting, curl, recession. Lengths are heights of the ends: 0 the eyes, 1 the
# chin. A negative volume is a bald head.
STYLES = np.array(
    [
        (-1.0, 0.0, 0.0, 0.0, 0.0, 0.5),  # bald
        (0.02, 0.05, 0.0, 0.0, 0.0, 0.6),  # cropped
        (0.10, 0.10, 0.2, 0.7, 0.0, 0.2),  # short, parted at the side
        (0.10, 0.15, 0.85, 0.1, 0.0, 0.0),  # short fringe
        (0.22, 0.05, -0.1, 0.2, 0.1, 0.4),  # brushed up
        (0.13, 0.85, 0.9, 0.0, 0.0, 0.0),  # bob with a fringe
        (0.10, 1.45, 0.1, 0.0, 0.0, 0.0),  # long, parted in the middle
        (0.14, 1.30, 0.35, -0.8, 0.3, 0.0),  # long, parted at the side
        (0.26, 0.35, 0.25, 0.0, 1.0, 0.0),  # curls
        (0.22, 1.10, 0.20, 0.3, 0.9, 0.0),  # long curls
    ]
)
SKINS = np.array([(250, 214, 190), (234, 186, 152), (208, 154, 116), (172, 118, 84), (134, 90, 64), (104, 70, 54)])
HAIRS = np.array([(22, 18, 20), (58, 38, 28), (100, 64, 38), (146, 98, 54), (206, 168, 104), (156, 66, 34)])
EYES = np.array([(70, 42, 24), (110, 72, 36), (96, 120, 64), (70, 118, 158), (118, 136, 146)])
FRAMES = np.array([(24, 22, 24), (96, 52, 28), (150, 150, 158), (150, 32, 40), (40, 62, 120)])

MOODS = np.array(  # of EXPRESSION without the gaze
    [
        (0.0, 0.0, 0.0, 0.0, 0.0),
        (0.9, 0.0, 0.1, 0.0, 0.25),  # a smile
        (1.0, 0.55, 0.3, 0.0, 0.45),  # laughter
        (0.0, 0.8, 1.0, 0.0, -0.3),  # surprise
        (-0.8, 0.0, 0.3, 0.4, 0.3),  # sadness
        (-0.5, 0.05, -0.6, 1.0, 0.2),  # anger
    ]
)
POSE = np.radians([30.0, 14.0, 10.0])  # most yaw, pitch and roll to either side
AGES = (18.0, 80.0)
APART = 8.0  # most years by which a view is older or younger than the age of its identity


@dataclasses.dataclass(frozen=True)
class Faces:
    """Faces as arrays of parameters, a row per face; everything that a picture depends on except its size.

    Attributes:
      identity: columns are `IDENTITY`: shape and hair, colours in [0, 1], moles, and style of beard and glasses.
      pose: yaw, pitch and roll. Positive ones turn towards the image's right, up, and clockwise.
      expression: columns are `EXPRESSION`. A smile of -1 is a sad mouth; brows go up or down; gaze is in [-1, 1].
      age: in years.
      glasses: 1 with, 0 without.
      beard: length of a beard in [0, 1], of the style that the identity has.
      scene: columns are `SCENE`: direction and strength of the light, tint, place in shares of the image's side,
        clothes, and the square of a photograph that is behind.
    """

    identity: Float32[np.ndarray, "faces traits"]
    pose: Float32[np.ndarray, "faces 3"]
    expression: Float32[np.ndarray, "faces 7"]
    age: Float32[np.ndarray, "faces 1"]
    glasses: Float32[np.ndarray, "faces 1"]
    beard: Float32[np.ndarray, "faces 1"]
    scene: Float32[np.ndarray, "faces numbers"]

    def __len__(self) -> int:
        """Returns the number of faces."""
        return len(self.identity)

    def __getitem__(self, rows: slice | Shaped[np.ndarray, " _"] | Sequence[int]) -> "Faces":
        """Selects faces, by a slice or an array of indices."""
        return Faces(**{name: getattr(self, name)[rows] for name in WIDTHS})

    def trait(self, name: str) -> Float32[np.ndarray, "faces _"]:
        """Returns the columns of `IDENTITY`, `EXPRESSION` or `SCENE` with this name."""
        if name in EXPRESSION:
            place = EXPRESSION.index(name)
            return self.expression[:, place : place + 1]
        return self.identity[:, IDENTITY[name]] if name in IDENTITY else self.scene[:, SCENE[name]]

    def number(self, name: str) -> float:
        """Returns a trait of the first face."""
        return float(self.trait(name)[0, 0])

    def edited(self, **changes: Any) -> "Faces":
        """Returns the same faces with other values of a field, trait, expression or part of the scene.

        A number or a row goes to all faces: `faces.edited(age=70, smile=1.0)` are the same people, older and smiling.
        What is one number for a face also takes a list of one for each. Raises a UserError for an unknown name or
        values of another shape.
        """
        arrays = {name: getattr(self, name).copy() for name in WIDTHS}
        for name, value in changes.items():
            if name in WIDTHS:
                place = arrays[name]
            elif name in EXPRESSION:
                place = arrays["expression"][:, EXPRESSION.index(name)][:, None]
            elif name in IDENTITY or name in SCENE:
                field, columns = ("identity", IDENTITY) if name in IDENTITY else ("scene", SCENE)
                place = arrays[field][:, columns[name]]
            else:
                known = (*WIDTHS, *EXPRESSION, *IDENTITY, *SCENE)
                raise UserError(f"faces have no {name!r}. Known: {', '.join(known)}.")
            place[:] = _fit(name, value, place.shape)
        return Faces(**arrays)


def sample_identities(seed: int | Sequence[int], count: int) -> Faces:
    """Draws people at random: frontal, without expression, glasses or beard, in plain light, 20 to 75 years old.

    The first ones are the same for any `count`.
    """
    draw = _streams(seed, 0, count)
    style = STYLES[(draw(1)[:, 0] * len(STYLES)).astype(int)]
    spread = np.array([0.0, 0.08, 0.1, 0.2, 0.05, 0.2])
    spread = spread + 0.3 * np.abs(style) * (np.arange(len(HAIR)) == HAIR.index("volume"))
    style = style + (draw(len(HAIR)) * 2 - 1) * spread
    marks = draw(3 * MARKS).reshape(count, MARKS, 3)
    # Position as shares of the face's half width and height, and a radius; half of them are not there.
    radii = np.where(marks[..., 2] < 0.5, 0.0, 0.012 + 0.05 * (marks[..., 2] - 0.5))
    marks = np.stack([marks[..., 0] * 1.3 - 0.65, marks[..., 1] * 1.1 - 0.35, radii], -1)
    skin, hair = _between(SKINS, draw(4)), _between(HAIRS, draw(4))
    values = {
        **{name: (draw(1) * 2 - 1) for name in SHAPE},
        **{name: style[:, place : place + 1] for place, name in enumerate(HAIR)},
        "skin": skin,
        "hair_colour": hair,
        "eye_colour": _between(EYES, draw(4)),
        "marks": marks.reshape(count, -1),
        "freckles": np.maximum(0, draw(1) * 3 - 2),
        "beard_style": np.floor(draw(1) * 2 * len(BEARDS)) % (2 * len(BEARDS)),
        "lens_shape": draw(1),
        "lens_width": draw(1),
        "frame_colour": FRAMES[(draw(1)[:, 0] * len(FRAMES)).astype(int)] / 255,
    }
    values["beard_style"] = np.where(values["beard_style"] < len(BEARDS), values["beard_style"], 0)
    identity = np.concatenate([np.broadcast_to(values[name], (count, _width(IDENTITY[name]))) for name in IDENTITY], 1)
    plain = dict(azimuth=0.3, elevation=0.5, strength=0.5, ambient=0.62, tint=1.0, scale=1.0, clothes=0.35, side=0.0)
    scene = [np.full(_width(SCENE[name]), plain.get(name, 0.0)) for name in SCENE]
    return Faces(
        identity.astype(np.float32),
        *(np.zeros((count, WIDTHS[name]), np.float32) for name in ("pose", "expression")),
        (20 + 55 * draw(1) ** 1.3).astype(np.float32),
        *(np.zeros((count, 1), np.float32) for _ in range(2)),
        np.tile(np.concatenate(scene).astype(np.float32), (count, 1)),
    )


def sample_views(seed: int | Sequence[int], faces: Faces, photographs: Sequence[str] = PHOTOGRAPHS) -> Faces:
    """Gives each face a random pose, expression, beard, glasses, light, place and background, and an age near its own.

    For several views per person, repeat the rows: `faces[np.repeat(np.arange(len(faces)), 20)]`.
    """
    count = len(faces)
    draw = _streams(seed, 1, count)
    mood = MOODS[(draw(1)[:, 0] * len(MOODS)).astype(int)] * (0.4 + 0.6 * draw(1))
    mood = mood + (draw(5) * 2 - 1) * np.array([0.15, 0.04, 0.15, 0.08, 0.1])
    mood[:, 1] = np.clip(mood[:, 1], 0, 1)
    expression = np.concatenate([mood, draw(2) * 1.4 - 0.7], axis=1)
    chosen = np.array([PHOTOGRAPHS.index(name) for name in photographs])
    values = {
        "azimuth": (draw(1) * 2 - 1) * 1.2,
        "elevation": draw(1) * 1.2 - 0.2,
        "strength": 0.2 + 0.3 * draw(1),
        "ambient": 0.52 + 0.28 * draw(1),
        "tint": 1 + (draw(3) * 2 - 1) * np.array([0.04, 0.02, 0.05]),
        "x": (draw(1) * 2 - 1) * 0.05,
        "y": (draw(1) * 2 - 1) * 0.04,
        "scale": 0.9 + 0.2 * draw(1),
        "clothes": 0.08 + 0.8 * draw(3),
        "photograph": chosen[(draw(1)[:, 0] * len(chosen)).astype(int)][:, None],
        "left": draw(1),
        "top": draw(1),
        "side": 0.3 + 0.7 * draw(1),
        "mirrored": (draw(1) < 0.5),
    }
    triangular = draw(3) + draw(3) - 1  # small angles are more frequent
    return dataclasses.replace(
        faces,
        pose=(triangular * POSE).astype(np.float32),
        expression=expression.astype(np.float32),
        age=np.clip(faces.age + APART * (draw(1) * 2 - 1), *AGES).astype(np.float32),
        glasses=(draw(1) < 0.12).astype(np.float32),
        beard=np.where(draw(1) < 0.35, 0.0, 0.3 + 0.7 * draw(1)).astype(np.float32),
        scene=np.concatenate([values[name] for name in SCENE], axis=1).astype(np.float32),
    )


def _streams(seed: int | Sequence[int], kind: int, count: int):
    """Returns a function that draws [count, width] from a further stream of random numbers at each call."""
    numbers = iter(range(10_000))
    base = (seed,) if isinstance(seed, int) else tuple(seed)
    return lambda width: np.random.default_rng((*base, kind, next(numbers))).uniform(size=(count, width))


def _between(palette: Integer[np.ndarray, "colours 3"], drawn: np.ndarray) -> np.ndarray:
    """Mixes two neighbours of a palette, and changes each channel a little; returns colours in [0, 1]."""
    place = drawn[:, 0] * (len(palette) - 1)
    first, share = np.floor(place).astype(int), (place % 1)[:, None]
    mixed = palette[first] * (1 - share) + palette[first + 1] * share
    return np.clip(mixed / 255 * (0.92 + 0.16 * drawn[:, 1:]), 0, 1)


def _fit(name: str, value: Any, shape: tuple[int, int]) -> np.ndarray:
    """Returns values for [faces, width]; raises a UserError if they are of another shape."""
    given, (count, width) = np.asarray(value), shape
    if given.shape == (count,) and width == 1:
        given = given[:, None]
    try:
        return np.broadcast_to(given, shape)
    except ValueError as error:
        row = "one value" if width == 1 else f"one value, a row of {width}"
        raise UserError(
            f"{name} of shape {given.shape} does not fit {count} faces: give {row} or an array of shape {shape}."
        ) from error


def _width(columns: slice) -> int:
    return columns.stop - columns.start
