"""`shapes`: drawn scenes in two styles, with and without pairs, for the translation of images into images."""

import dataclasses
from collections.abc import Iterator
from typing import Any, Literal

import cv2
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float64, UInt8

from cvjax.data.builders.embedded import Embedded, png

KINDS = {"circle": 64, "square": 4, "triangle": 3}  # and the number of corners that are drawn
MOST = 3  # shapes of a scene
RADII = (0.17, 0.4)  # of circumscribed circles, as shares of the scene's side
GAP = 0.03  # least distance of two of these circles, and of one from the border, as such a share
ATTEMPTS = 40  # at a place for a shape; one that finds none is left out
FINE = 8  # shapes are drawn with this number of pixels per pixel, and averaged

LIGHT, ORANGE = (235, 235, 225), (240, 130, 30)  # the colours of the solid style
DARK, WHITE, TEAL = (20, 22, 40), (255, 250, 240), (0, 70, 85)  # and of the striped style
STRIPE = 2  # rows of pixels of a stripe; the first one, at the top of the scene, is white
PAPER, INK = (255, 255, 255), (0, 0, 0)
LINE = 0.04  # width of an outline, as a share of the scene's side
# All six orders of one low, one middle and one high level: the median of each channel is the middle one, so that the
# colour nearest to all of them, in L1, is grey.
FILLS = ((230, 128, 26), (230, 26, 128), (128, 230, 26), (26, 230, 128), (128, 26, 230), (26, 128, 230))

SHIFT = 4  # binary digits behind the point of OpenCV's coordinates
SEED = 4
TEST, TRAIN, TRAIN_STRIPED, COLOURS = range(4)  # streams of random numbers

Pixels = UInt8[np.ndarray, "size size 3"]


@dataclasses.dataclass
class Drawn(tfds.core.BuilderConfig):
    """A variant: what is drawn of its scenes, their side in pixels, and their number in each split."""

    style: Literal["solid", "striped", "paired", "edges"] = "solid"
    size: int = 32
    train: int = 2000
    test: int = 200


STYLES = {
    "solid": "orange shapes on a light ground",
    "striped": "striped shapes on a dark ground; the test scenes are those of `solid`, the training scenes are others",
    "paired": "solid scenes, and as `target` the same ones striped",
    "edges": "outlines, and as `target` the shapes filled with colours at random",
}
MANY = "ten thousand scenes like those of `solid`, which they begin with, and a thousand for testing"
VARIANTS = (
    *(Drawn(name=style, description=text, style=style) for style, text in STYLES.items()),
    *(Drawn(name=f"smoke_{style}", description=f"a few of {style}", style=style, train=16, test=8) for style in STYLES),
    Drawn(name="many", description=MANY, train=10_000, test=1000),
)


@dataclasses.dataclass(frozen=True)
class Shape:
    """A shape: its kind, its centre and circumscribed circle in shares of the side, its angle in radians."""

    kind: str
    x: float
    y: float
    radius: float
    angle: float

    def outline(self, side: int) -> Float64[np.ndarray, "corners 2"]:
        """Returns the corners in pixels of a scene of `side` pixels."""
        turns = self.angle + np.arange(KINDS[self.kind]) * 2 * np.pi / KINDS[self.kind]
        return side * (np.array([self.x, self.y]) + self.radius * np.stack([np.cos(turns), np.sin(turns)], axis=1))


class Shapes(Embedded):
    """32x32 scenes of one to three circles, squares and triangles, none touching; the label is the largest one's kind.

    A scene determines its solid and its striped picture: stripes lie in fixed rows of pixels. `solid` and `striped`
    share no training scene, but row i of their test splits is the same scene, so that either is the truth that a
    translation of the other has not seen. `paired` and `edges` have the scenes of `solid`, and a `target` for each. In
    `edges` every shape's colour is drawn independently of all else: there are several right answers.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = list(VARIANTS)  # noqa: RUF012 (TFDS's own way)

    def _info(self) -> tfds.core.DatasetInfo:
        picture = tfds.features.Image(
            shape=(self.builder_config.size, self.builder_config.size, 3), encoding_format="png"
        )
        target = {"target": picture} if self.builder_config.style in ("paired", "edges") else {}
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn scenes of a few shapes, solid, striped or as outlines.",
            features=tfds.features.FeaturesDict(
                {"image": picture, "label": tfds.features.ClassLabel(names=[*KINDS]), **target}
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        stream = TEST if split == "test" else TRAIN_STRIPED if config.style == "striped" else TRAIN
        for key in range(getattr(config, split)):
            shapes = scene(np.random.default_rng((SEED, stream, key)))
            if config.style == "edges":
                colours = np.random.default_rng((SEED, COLOURS, stream, key))
                pictures = {"image": outlined(shapes, config.size), "target": filled(colours, shapes, config.size)}
            elif config.style == "paired":
                pictures = {"image": solid(shapes, config.size), "target": striped(shapes, config.size)}
            else:
                pictures = {"image": (striped if config.style == "striped" else solid)(shapes, config.size)}
            yield key, {**{name: png(image) for name, image in pictures.items()}, "label": shapes[0].kind}


def scene(generator: np.random.Generator) -> tuple[Shape, ...]:
    """Draws the shapes of a scene, the largest first."""
    placed = []
    for _ in range(generator.integers(1, MOST, endpoint=True)):
        kind, angle = str(generator.choice([*KINDS])), generator.uniform(0, 2 * np.pi)
        for _ in range(ATTEMPTS):
            x, y, radius = *generator.uniform(size=2), generator.uniform(*RADII)
            room = min(x, y, 1 - x, 1 - y, *(np.hypot(x - one.x, y - one.y) - one.radius for one in placed)) - GAP
            if room >= RADII[0]:
                placed.append(Shape(kind, x, y, min(radius, room), angle))
                break
    return tuple(sorted(placed, key=lambda shape: -shape.radius))


def coverage(shape: Shape, size: int) -> Float64[np.ndarray, "size size 1"]:
    """Returns the share of each pixel that a shape covers."""
    return _averaged(cv2.fillPoly(_canvas(size), [_fixed_point(shape, size)], 1.0, shift=SHIFT))


def solid(shapes: tuple[Shape, ...], size: int) -> Pixels:
    """Paints a scene in the solid style."""
    return paint(LIGHT, [(ORANGE, coverage(shape, size)) for shape in shapes])


def striped(shapes: tuple[Shape, ...], size: int) -> Pixels:
    """Paints a scene in the striped style."""
    white = np.arange(size)[:, None, None] // STRIPE % 2 == 0
    rows = np.where(white, np.array(WHITE), np.array(TEAL))
    return paint(DARK, [(rows, coverage(shape, size)) for shape in shapes])


def outlined(shapes: tuple[Shape, ...], size: int) -> Pixels:
    """Draws the outlines of a scene in black on white."""
    width = round(LINE * size * FINE)
    lines = [
        cv2.polylines(_canvas(size), [_fixed_point(shape, size)], True, 1.0, width, shift=SHIFT) for shape in shapes
    ]
    return paint(PAPER, [(INK, _averaged(line)) for line in lines])


def filled(generator: np.random.Generator, shapes: tuple[Shape, ...], size: int) -> Pixels:
    """Fills the shapes of a scene with random colours on white."""
    colours = generator.integers(len(FILLS), size=len(shapes))
    return paint(PAPER, [(FILLS[colour], coverage(shape, size)) for colour, shape in zip(colours, shapes, strict=True)])


def paint(ground: tuple[int, int, int], layers: list[tuple[Any, Float64[np.ndarray, "size size 1"]]]) -> Pixels:
    """Lays colours over a ground, one after the other, each where its share of a pixel says."""
    picture = np.array(ground, float)
    for colour, share in layers:
        picture = picture + share * (np.array(colour) - picture)
    return np.round(picture).astype(np.uint8)


def _canvas(size: int) -> np.ndarray:
    return np.zeros((size * FINE, size * FINE), np.float32)


def _fixed_point(shape: Shape, size: int) -> np.ndarray:
    # OpenCV's coordinates are those of the centres of pixels.
    return np.round((shape.outline(size * FINE) - 0.5) * 2**SHIFT).astype(np.int32)


def _averaged(fine: np.ndarray) -> np.ndarray:
    side = len(fine) // FINE
    return fine.reshape(side, FINE, side, FINE).mean((1, 3), dtype=np.float64)[..., None]
