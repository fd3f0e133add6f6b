"""Composes scenes of digits: background, places, colours, masks, caption."""

import dataclasses
import functools
from collections.abc import Sequence, Set
from typing import Any

import cv2
import numpy as np
from jaxtyping import Bool, Float32, Int, UInt8

from cvjax.data.builders import digits

COLOURS = {  # as captions call them; well apart in hue or in lightness
    "white": (250, 250, 250),
    "black": (10, 10, 10),
    "red": (225, 30, 30),
    "orange": (255, 140, 0),
    "yellow": (255, 230, 30),
    "green": (30, 160, 50),
    "cyan": (50, 220, 235),
    "blue": (35, 70, 230),
    "purple": (130, 40, 190),
    "pink": (255, 120, 190),
}
PALETTE = np.array(list(COLOURS.values()), np.float32) / 255
LAB = cv2.cvtColor(PALETTE[None], cv2.COLOR_RGB2LAB)[0]
SHADE = 0.05  # most by which a digit's colour differs from the named one
CONTRAST = 45  # CIELAB distance between a colour and the pixels below it
NEAR = 0.1  # share of those pixels that may be closer
INK = 0.55  # grey level of a scan at which its paint is half opaque
SOFT = 0.25  # difference from that level at which paint is fully opaque or transparent
SHARP = 4.0  # enlargement from which edges are sharpened, so that strokes do not blur
OVERLAP = 0.05  # most overlap, as a share of the smaller box, without occlusion
OUTSIDE = 0.5  # most of a digit's sides beyond the border, with occlusion
DIFFICULT = 0.4  # a digit is difficult if a smaller share is visible
LEGIBLE = 0.75  # least visible share of any other digit, so that a person can read it
FAINT = 0.1  # least visible share of a difficult digit, so that a person can notice it
HIDING = 0.15  # how often a digit should hide another, or be cut by the border
ATTEMPTS = 30  # places tried for hiding, and then for any other place
TRIES = 3  # places tried for each size and angle


@dataclasses.dataclass(frozen=True)
class Layout:
    """Ranges of the random properties of a scene of `size` by `size` pixels.

    Attributes:
      most, least: the number of digits is drawn uniformly from `least` to `most`; digits without room are left out.
      smallest, largest: range of the length of a digit's longer side in pixels before it is turned.
      degrees: most by which a digit is turned to either side.
      occlusion: whether digits may cover one another and be cut by the border; if not, boxes hardly overlap.
    """

    size: int = 64
    most: int = 5
    smallest: int = 12
    largest: int = 28
    degrees: float = 25.0
    occlusion: bool = True
    least: int = 1


@dataclasses.dataclass
class Digit:
    """A digit in a scene, with its row in `load_digits`, its opacity `alpha` and the name of its colour.

    The upper left corner of `alpha` in the scene, at `top` and `left`, may be negative.
    """

    row: int
    label: int
    alpha: Float32[np.ndarray, "height width"]
    top: int = 0
    left: int = 0
    colour: str = ""

    @functools.cached_property
    def opaque(self) -> Bool[np.ndarray, "height width"]:
        """Whether each pixel of `alpha` belongs to the digit."""
        return self.alpha > 0.5

    @property
    def box(self) -> Int[np.ndarray, "4"]:
        """The tight box around the digit, perhaps beyond the border of the scene."""
        left, top, width, height = self._extent
        return np.array([left, top, left + width, top + height]) + [self.left, self.top] * 2

    @functools.cached_property
    def _extent(self) -> Sequence[int]:
        return cv2.boundingRect(self.opaque.astype(np.uint8))

    def windows(self, size: int) -> tuple[tuple[slice, slice], tuple[slice, slice]]:
        """Returns the part of a scene of this size that it covers, and the part of `alpha` inside the scene."""
        scene, own = [], []
        for start, length in zip((self.top, self.left), self.alpha.shape, strict=True):
            first, last = max(start, 0), max(0, min(start + length, size))
            scene.append(slice(first, last))
            own.append(slice(first - start, last - start))
        return tuple(scene), tuple(own)


class Glyphs:
    """The digits of a split of `digits`, drawn at any size and angle."""

    def __init__(self, split: str):
        self.rows = digits.rows()[split]
        images, self.labels = digits.scans()
        # One empty pixel around, so that strokes end within the picture.
        self.images = np.pad(images.astype(np.float32) / digits.LEVELS, ((0, 0), (1, 1), (1, 1)))
        self.extents = {row: _extent(self.images[row]) for row in self.rows.tolist()}

    def draw(self, row: int, length: float, degrees: float) -> Float32[np.ndarray, "height width"]:
        """Draws the opacity of a digit, `length` pixels on its longer side before it is turned counter-clockwise."""
        left, top, width, height = self.extents[row]
        canvas = int(np.ceil(1.5 * length)) + 2  # the diagonal is shorter
        middle = left + (width - 1) / 2, top + (height - 1) / 2
        scale = float(length / max(width, height))
        turn = cv2.getRotationMatrix2D(middle, degrees, scale)
        turn[:, 2] += (canvas - 1) / 2 - np.array(middle)
        grey = cv2.warpAffine(self.images[row], turn, (canvas, canvas), flags=cv2.INTER_CUBIC)
        level = np.clip(0.5 + (grey - INK) * (max(1, scale / SHARP) / (2 * SOFT)), 0, 1)
        return level * level * (3 - 2 * level)


def background(
    generator: np.random.Generator, photograph: UInt8[np.ndarray, "height width 3"], size: int
) -> Float32[np.ndarray, "size size 3"]:
    """Cuts a random square out of a photograph and shrinks it to `size`, mirrored half of the time.

    The photograph is at least `size` pixels high and wide.
    """
    height, width = photograph.shape[:2]
    side = round(np.exp(generator.uniform(np.log(size), np.log(min(height, width)))))
    top, left = generator.integers(height - side + 1), generator.integers(width - side + 1)
    square = np.ascontiguousarray(photograph[top : top + side, left : left + side])
    shrunk = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA)
    return (shrunk if generator.random() < 0.5 else shrunk[:, ::-1]).astype(np.float32) / 255


def compose(
    generator: np.random.Generator, canvas: Float32[np.ndarray, "size size 3"], glyphs: Glyphs, layout: Layout
) -> dict[str, Any]:
    """Puts random digits on a background, which is painted over.

    Returns `image` and the maps `class_map` and `instances`, all uint8; `objects`, a list of `box` in pixels, `label`,
    `difficult`, `area` and `row`; and `caption`.
    """
    instances = np.zeros(canvas.shape[:2], np.uint8)
    placed = []
    for _ in range(generator.integers(layout.least, layout.most + 1)):
        digit = _place(generator, glyphs, placed, instances, layout)
        if digit is None:
            continue
        scene, own = digit.windows(layout.size)
        taken = {other.colour for other in placed if _overlap(digit, other) > 0}
        digit.colour = _colour(generator, canvas[scene], taken)
        shade = PALETTE[list(COLOURS).index(digit.colour)] + generator.uniform(-SHADE, SHADE, 3).astype(np.float32)
        alpha = digit.alpha[own][..., None]
        canvas[scene] += alpha * (np.clip(shade, 0, 1) - canvas[scene])
        placed.append(digit)
        instances[scene][digit.opaque[own]] = len(placed)
    visible = np.bincount(instances.ravel(), minlength=len(placed) + 1)[1:]
    difficult = [area < DIFFICULT * digit.opaque.sum() for digit, area in zip(placed, visible, strict=True)]
    classes = np.array([0, *(1 + digit.label for digit in placed)], np.uint8)
    return {
        "image": np.round(canvas * 255).astype(np.uint8),
        "class_map": classes[instances],
        "instances": instances,
        "objects": [
            dict(
                box=np.clip(digit.box, 0, layout.size),
                label=digit.label,
                difficult=hidden,
                area=float(area),
                row=digit.row,
            )
            for digit, area, hidden in zip(placed, visible, difficult, strict=True)
        ],
        "caption": caption([digit for digit, hidden in zip(placed, difficult, strict=True) if not hidden]),
    }


def caption(placed: list[Digit]) -> str:
    """Names digits and places: "a red 3 left of a blue 7", "a red 3, a blue 7 and a pink 1 from left to right"."""
    middles = [(digit.box[:2] + digit.box[2:]) / 2 for digit in placed]
    across, down = np.ptp(middles, axis=0)
    axis = int(len(placed) == 2 and down > across)
    ordered = [placed[index] for index in sorted(range(len(placed)), key=lambda index: middles[index][axis])]
    names = [f"{'an' if digit.colour == 'orange' else 'a'} {digit.colour} {digit.label}" for digit in ordered]
    if len(names) == 2:
        return f"{names[0]} {('left of', 'above')[axis]} {names[1]}"
    return f"{', '.join(names[:-1])} and {names[-1]} from left to right" if len(names) > 2 else names[0]


def _extent(glyph: np.ndarray) -> tuple[float, float, float, float]:
    """Left, top, width and height of a digit's ink in pixels of the scan, to a sixteenth."""
    fine = cv2.resize(glyph, None, fx=16, fy=16, interpolation=cv2.INTER_CUBIC)
    left, top, width, height = np.array(cv2.boundingRect((fine > INK).astype(np.uint8))) / 16
    return left, top, width, height


def _place(
    generator: np.random.Generator, glyphs: Glyphs, placed: list[Digit], instances: np.ndarray, layout: Layout
) -> Digit | None:
    """Finds a place for a random digit, or None. Now and then it hides another digit or is cut by the border."""
    row = int(generator.choice(glyphs.rows))
    hiding = layout.occlusion and generator.random() < HIDING
    visible = np.bincount(instances.ravel(), minlength=len(placed) + 1)[1:]
    whole = [digit.opaque.sum() for digit in placed]
    difficult = (visible < np.multiply(DIFFICULT, whole)).sum()
    for attempt in range(2 * ATTEMPTS):
        if attempt % TRIES == 0:
            length = generator.uniform(layout.smallest, layout.largest)
            alpha = glyphs.draw(row, length, generator.uniform(-1, 1) * layout.degrees)
        digit = Digit(row, int(glyphs.labels[row]), alpha)
        corner, sides = digit.box[:2], digit.box[2:] - digit.box[:2]
        beyond = (OUTSIDE * sides * layout.occlusion).astype(int)
        drawn = generator.integers(-beyond, layout.size - sides + beyond, endpoint=True)
        digit.left, digit.top = (drawn - corner).tolist()
        if not layout.occlusion:
            if all(_overlap(digit, other) <= OVERLAP for other in placed):
                return digit
            continue
        scene, own = digit.windows(layout.size)
        inside = digit.opaque[own]
        covered = np.bincount(instances[scene][inside], minlength=len(placed) + 1)[1:]
        shares = np.append(visible - covered, inside.sum()) / [*whole, digit.opaque.sum()]
        legible, hidden = shares >= LEGIBLE, (shares >= FAINT) & (shares < DIFFICULT)
        wanted = difficult + (hiding and attempt < ATTEMPTS)
        if (legible | hidden).all() and legible.any() and hidden.sum() == wanted:
            return digit
    return None


def _overlap(first: Digit, second: Digit) -> float:
    """Intersection of two digits' boxes over the area of the smaller one."""
    shared = np.minimum(first.box[2:], second.box[2:]) - np.maximum(first.box[:2], second.box[:2])
    smaller = min(np.prod(digit.box[2:] - digit.box[:2]) for digit in (first, second))
    return np.prod(np.maximum(shared, 0)) / smaller


def _colour(generator: np.random.Generator, pixels: np.ndarray, taken: Set[str]) -> str:
    """Draws a colour that is not taken and contrasts with the pixels below it."""
    step = -(-max(pixels.shape) // 32)  # a thousand pixels suffice
    lab = cv2.cvtColor(np.ascontiguousarray(pixels[::step, ::step]), cv2.COLOR_RGB2LAB).reshape(-1, 1, 3)
    near = (np.square(lab - LAB).sum(-1) < CONTRAST**2).mean(0) + [name in taken for name in COLOURS]
    fit = np.flatnonzero(near <= NEAR)
    return list(COLOURS)[int(generator.choice(fit)) if len(fit) else int(near.argmin())]
