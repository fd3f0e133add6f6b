"""Paints faces: polygons from back to front on a fine canvas, the lines of age, light, and the photograph behind."""

import functools
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from jaxtyping import Float32, Int32, UInt8

from cvjax.data.builders import photos
from cvjax.data.builders.drawn_faces import geometry
from cvjax.data.builders.drawn_faces.parameters import BEARDS, PHOTOGRAPHS, Faces
from cvjax.errors import UserError

REGIONS = ("background", "skin", "hair", "eyes", "brows", "nose", "mouth")
BACKGROUND, SKIN, HAIR, EYES, BROWS, NOSE, MOUTH = range(len(REGIONS))
SIZES = (32, 256)
FINE = 3  # pixels of the canvas per pixel of the picture; odd, so that one is in the middle
SHIFT = 4  # binary digits behind the point of OpenCV's coordinates
CHUNK = 64  # faces whose curves are computed together
NEUTRAL = 128  # of the canvas of shades, which multiply colours

# In the order of the 68 landmarks of iBUG's 300-W, and both pupils. Left and right are those of the picture.
LANDMARKS = 70
EXCHANGE = (
    *((point, 16 - point) for point in range(8)),
    *((point, 43 - point) for point in range(17, 22)),
    *((31, 35), (32, 34)),
    *((36, 45), (37, 44), (38, 43), (39, 42), (40, 47), (41, 46)),
    *((48, 54), (49, 53), (50, 52), (55, 59), (56, 58), (60, 64), (61, 63), (65, 67)),
    (68, 69),
)

Pixels = UInt8[np.ndarray, "faces size size 3"]


def draw(
    faces: Faces, size: int = 64
) -> tuple[Pixels, Float32[np.ndarray, "faces 70 2"], UInt8[np.ndarray, "faces size size"]]:
    """Draws faces.

    Glasses are not a region: pixels are of what is behind them. A beard is hair, stubble is skin. Ears and neck are skin,
    clothes are background.

    Args:
      size: side of the pictures in pixels, 32 to 256.

    Returns:
      The pictures, the landmarks as x and y in pixels, where (0.5, 0.5) is the middle of the first pixel, and the region
      of each pixel, a row of `REGIONS`. Landmarks are fixed to the head, hidden ones included.

    Raises a UserError for a size out of range.
    """
    if not SIZES[0] <= size <= SIZES[1]:
        raise UserError(f"drawn faces of size {size}: from {SIZES[0]} to {SIZES[1]} pixels can be drawn")
    images, regions = np.empty((len(faces), size, size, 3), np.uint8), np.empty((len(faces), size, size), np.uint8)
    marks = np.empty((len(faces), LANDMARKS, 2), np.float32)
    for first in range(0, len(faces), CHUNK):
        part = faces[first : first + CHUNK]
        points = geometry.project(part, geometry.curves(part), size)
        marks[first : first + CHUNK] = landmarks(points)
        prepared = _prepare(part, points, size)
        for row, face in enumerate(prepared):
            images[first + row], regions[first + row] = face.painted()
    return images, marks, regions


def landmarks(points: dict[str, np.ndarray]) -> Float32[np.ndarray, "faces 70 2"]:
    """Returns the landmarks from projected curves."""
    left, right = ({name: points[name + side] for name in ("brow", "eye", "pupil")} for side in ("0", "1"))
    wing, other = points["wing0"], points["wing1"]
    lips = points["top"][:, [0, 2, 4, 6, 8, 10, 12]], points["bottom"][:, [10, 8, 6, 4, 2]]
    inner = points["inner_top"][:, [1, 4, 6, 8, 11]], points["inner_bottom"][:, [8, 6, 4]]
    found = [
        points["jaw"],
        _middle(left["brow"])[:, [12, 9, 6, 3, 0]],
        _middle(right["brow"])[:, [0, 3, 6, 9, 12]],
        points["bridge"],
        *(wing[:, 1:], points["nostril0"], points["base"], points["nostril1"], other[:, 1:]),
        left["eye"][:, [12, 9, 4, 0, 22, 16]],
        right["eye"][:, [0, 4, 9, 12, 16, 22]],
        *lips,
        *inner,
        left["pupil"],
        right["pupil"],
    ]
    return np.concatenate(found, 1)[..., :2]


def _middle(outline: np.ndarray) -> np.ndarray:
    half = outline.shape[1] // 2
    return (outline[:, :half] + outline[:, half:][:, ::-1]) / 2


def _prepare(faces: Faces, points: dict[str, np.ndarray], size: int) -> Iterator["Face"]:
    """Yields each face with its curves in OpenCV's fixed-point coordinates of the canvas, and its colours."""
    roll = faces.pose[:, 2:, None]
    axis = np.concatenate([np.cos(roll), np.sin(roll)], -1)
    opening, middle = points["opening_of_hair"], points["head"][..., :2].mean(1, keepdims=True)
    # What is behind the outline must not fold back into the face.
    side = np.sign(((opening[..., :2] - middle) * axis).sum(-1, keepdims=True))
    behind = np.maximum(0, -opening[..., 2:]) * size * 0.6
    points = {**points, "opening_of_hair": opening + np.concatenate([side * behind * axis, 0 * behind], -1)}
    names = list(points)
    ends = np.cumsum([points[name].shape[1] for name in names])[:-1]
    together = np.concatenate([points[name] for name in names], 1)
    fixed = np.round((together[..., :2] * FINE - 0.5) * 2**SHIFT).astype(np.int32)
    for row in range(len(faces)):
        curves = dict(zip(names, np.split(fixed[row], ends), strict=True))
        yield Face(
            faces[row : row + 1],
            curves,
            {"ear0": points["ear0"][row, :, 2].mean(), "ear1": points["ear1"][row, :, 2].mean()},
            size,
        )


class Face:
    """A face that is being painted: a canvas of colours, one of regions and one of shades."""

    def __init__(self, face: Faces, curves: dict[str, Int32[np.ndarray, "points 2"]], depths: dict, size: int):
        self.face, self.curves, self.depths, self.size = face, curves, depths, size
        self.side = size * FINE
        self.unit = self.side * geometry.HEIGHT * face.number("scale")  # of the head's coordinates, in pixels
        self.number = {name: face.number(name) for name in ("volume", "length", "curl", "freckles")}
        self.age = float(geometry.ageing(face)[0, 0])
        self.skin = face.trait("skin")[0] * (1 - 0.06 * self.age)
        grey = np.clip((float(face.age[0, 0]) - 38) / 34, 0, 0.92)
        self.hair = face.trait("hair_colour")[0] * (1 - grey) + 0.74 * grey
        self.colours = np.zeros((self.side, self.side, 3), np.uint8)
        self.regions = np.zeros((self.side, self.side), np.uint8)
        self.shades = np.full((self.side, self.side), NEUTRAL, np.uint8)

    def painted(self) -> tuple[UInt8[np.ndarray, "size size 3"], UInt8[np.ndarray, "size size"]]:
        """Paints all parts; returns the picture and its regions."""
        behind = self.behind()
        self.body()
        self.skull()
        self.features()
        self.facial_hair()
        self.cap()
        if self.face.glasses[0, 0] > 0.5:
            self.spectacles()
        return self.lit(behind), np.ascontiguousarray(self.regions[FINE // 2 :: FINE, FINE // 2 :: FINE])

    def fill(self, curve: str | np.ndarray, colour: np.ndarray, region: int | None = None) -> None:
        """Fills a closed curve on the canvases of colours and regions."""
        points = [self.curves[curve] if isinstance(curve, str) else curve]
        cv2.fillPoly(self.colours, points, _eight_bits(colour), cv2.LINE_AA, SHIFT)
        if region is not None:
            cv2.fillPoly(self.regions, points, region, cv2.LINE_8, SHIFT)

    def shade(self, curve: str, strength: float) -> None:
        """Darkens a closed curve by a share, or lightens it by a negative one."""
        cv2.fillPoly(self.shades, [self.curves[curve]], _shade(strength), cv2.LINE_AA, SHIFT)

    def line(self, curve: str, strength: float, width: float) -> None:
        """Darkens an open curve by a share; the width is in units of the head."""
        thick = max(1, round(width * self.unit))
        cv2.polylines(self.shades, [self.curves[curve]], False, _shade(strength), thick, cv2.LINE_AA, SHIFT)

    def stroke(self, curve: str, colour: np.ndarray, width: float, closed: bool = False) -> None:
        """Draws a line of a colour."""
        thick = max(1, round(width * self.unit))
        cv2.polylines(self.colours, [self.curves[curve]], closed, _eight_bits(colour), thick, cv2.LINE_AA, SHIFT)

    def hull(self, points: np.ndarray) -> np.ndarray:
        """Returns the convex hull of points."""
        return cv2.convexHull(points)[:, 0]

    def behind(self) -> Float32[np.ndarray, "size size 3"]:
        """Returns the photograph behind, and paints long hair that falls behind the neck."""
        if self.number["volume"] > 0 and self.number["length"] > 0.5:
            cap = np.concatenate([self.curves["scalp"], self.curves["ends"]])
            self.fill(self.hull(cap), self.hair * 0.72, HAIR)
        return _photograph(self.face, self.size)

    def body(self) -> None:
        """Paints clothes and neck, which do not turn with the head."""
        face, side = self.face, self.side
        scale = geometry.HEIGHT * face.number("scale")
        x, y = (0.5 + face.number(name) for name in ("x", "y"))
        y += geometry.CENTRE
        wide = 0.40 + 0.05 * face.number("neck_width")
        neck = np.array([(-wide, 0.4), (wide, 0.4), (wide, 1.25), (wide * 1.5, 1.6), (-wide * 1.5, 1.6), (-wide, 1.25)])
        turn = np.linspace(-np.pi, 0, 16)
        torso = np.stack([1.5 * np.cos(turn), 2.1 + 0.85 * np.sin(turn)], 1)
        collar = np.stack([0.62 * np.cos(turn), 1.3 - 0.34 * np.sin(turn)], 1)
        lean = np.array([float(np.sin(face.pose[0, 2])) * -0.35, 0]) * (1.4 - np.clip(neck[:, 1:], 0, 1.4))

        def place(points):
            places = (points * scale + (x, y)) * side
            return np.round((places - 0.5) * 2**SHIFT).astype(np.int32)

        clothes = face.trait("clothes")[0]
        self.fill(place(torso), clothes, BACKGROUND)
        cv2.fillPoly(self.regions, [place(torso)], 255, cv2.LINE_8, SHIFT)  # until all is painted
        self.fill(place(collar), self.skin * 0.8)
        self.fill(place(neck - lean), self.skin * 0.74, SKIN)

    def skull(self) -> None:
        """Paints ears and head."""
        for side in ("0", "1"):
            self.fill("ear" + side, self.skin * 0.88, SKIN)
        rings = self.curves["head"].reshape(geometry.RINGS, geometry.AROUND, 2)
        for first, last in ((0, 8), (4, 10), (6, 12), (9, 13)):
            self.fill(self.hull(rings[first:last].reshape(-1, 2)), self.skin, SKIN)

    def features(self) -> None:
        """Paints eyes, brows, nose and mouth, and the lines and shades of the skin."""
        self.marks()
        self.creases()
        light = _light(self.face)
        for side in ("0", "1"):
            self.eye(side)
        brows = self.hair * 0.62 + 0.1 * self.skin
        for side in ("0", "1"):
            self.fill("brow" + side, brows, BROWS)
        self.nose(light)
        lips = self.skin * np.array([0.80, 0.50, 0.50]) + np.array([0.06, 0.01, 0.02])
        self.fill("lips", lips, MOUTH)
        upper = np.concatenate([self.curves["top"], self.curves["inner_top"][::-1]])
        self.fill(upper, lips * 0.84)
        if self.face.number("open") > 0.08:
            self.fill("opening", np.array([0.22, 0.07, 0.07]))
            self.fill("teeth", np.array([0.93, 0.91, 0.86]))
        else:
            self.stroke("inner_top", lips * 0.5, 0.02)
        self.line("chin_fold", 0.16, 0.05)

    def marks(self) -> None:
        """Paints moles and freckles."""
        radii = self.face.trait("marks").reshape(-1, 3)[:, 2]
        for centre, radius in zip(self.curves["marks"], radii, strict=True):
            if radius > 0:
                size = max(1, int(radius * self.unit * 2**SHIFT))
                cv2.circle(self.colours, _pair(centre), size, _eight_bits(self.skin * 0.42), -1, cv2.LINE_AA, SHIFT)
        if self.number["freckles"] > 0:
            colour = _eight_bits(self.skin * (1 - 0.3 * self.number["freckles"]) * np.array([1, 0.9, 0.82]))
            for centre in self.curves["freckles"]:
                size = int(0.016 * self.unit * 2**SHIFT)
                cv2.circle(self.colours, _pair(centre), size, colour, -1, cv2.LINE_AA, SHIFT)

    def creases(self) -> None:
        """Shades the sockets of the eyes, and draws the lines of age and of expression."""
        smile = max(0.0, self.face.number("smile"))
        frown, raised = self.face.number("frown"), self.face.number("brows")
        for side in ("0", "1"):
            self.shade("socket" + side, 0.10 + 0.05 * self.age)
            self.line("crease" + side, 0.3, 0.022)
            self.line("bag" + side, 0.06 + 0.3 * self.age, 0.03)
            self.line("fold" + side, 0.05 + 0.32 * self.age + 0.18 * smile, 0.035)
            for name, strength, width in (
                ("marionette", 0.34 * self.age, 0.03),
                ("jowl", 0.2 * self.age, 0.05),
                ("between", 0.3 * self.age * 0.6 + 0.3 * frown, 0.025),
                *((f"foot{number}_", 0.36 * self.age + 0.1 * smile * self.age, 0.02) for number in range(3)),
            ):
                if strength > 0.04:
                    self.line(name + side, strength, width)
        for number in range(3):
            strength = 0.36 * self.age + 0.2 * max(0.0, raised)
            if strength > 0.05:
                self.line(f"forehead{number}", strength, 0.026)

    def eye(self, side: str) -> None:
        """Paints an eye: the iris is cut by the lids."""
        outline = self.curves["eye" + side]
        self.fill(outline, np.array([0.93, 0.92, 0.9]), EYES)
        left, top = (outline.min(0) >> SHIFT) - 1
        right, bottom = (outline.max(0) >> SHIFT) + 2
        left, top = max(0, left), max(0, top)
        patch = self.colours[top : bottom + 1, left : right + 1]
        if patch.size:
            iris, offset = patch.copy(), np.array([left, top]) << SHIFT
            colour = self.face.trait("eye_colour")[0]
            cv2.fillPoly(iris, [self.curves["iris" + side] - offset], _eight_bits(colour * 0.9), cv2.LINE_AA, SHIFT)
            pupil = _pair(self.curves["pupil" + side][0] - offset)
            cv2.circle(iris, pupil, int(0.032 * self.unit * 2**SHIFT), (14, 10, 10), -1, cv2.LINE_AA, SHIFT)
            glint = _pair(self.curves["glint" + side][0] - offset)
            cv2.circle(iris, glint, int(0.017 * self.unit * 2**SHIFT), (250, 250, 250), -1, cv2.LINE_AA, SHIFT)
            mask = np.zeros(patch.shape[:2], np.uint8)
            cv2.fillPoly(mask, [outline - offset], 255, cv2.LINE_8, SHIFT)
            cv2.copyTo(iris, mask, patch)
        self.stroke("lower" + side, self.skin * 0.62, 0.012)
        self.stroke("lid" + side, self.skin * 0.14, 0.034)

    def nose(self, light: np.ndarray) -> None:
        """Paints the nose as planes that the light meets at different angles."""
        for side in ("0", "1"):
            self.fill("flank" + side, self.skin, NOSE)
            self.fill("under" + side, self.skin * 0.84, NOSE)
        yaw = float(self.face.pose[0, 0])
        for side, sign in (("0", -1.0), ("1", 1.0)):
            facing = sign * (0.75 * light[0] + 0.25 * np.sin(yaw)) * 0.42
            self.shade("flank" + side, float(np.clip(0.10 - facing, -0.12, 0.42)))
            self.line("alar" + side, 0.34, 0.026)
            radius = int(0.031 * self.unit * 2**SHIFT)
            centre = _pair(self.curves["nostril" + side][0])
            cv2.circle(self.colours, centre, radius, _eight_bits(self.skin * 0.3), -1, cv2.LINE_AA, SHIFT)
        self.line("bridge", -0.12, 0.05)

    def facial_hair(self) -> None:
        """Paints a beard of the identity's style, if it is there."""
        style, length = BEARDS[int(self.face.number("beard_style"))], float(self.face.beard[0, 0])
        if style == "none" or length < 0.05:
            return
        share = 0.32 if style == "stubble" else 0.6 + 0.35 * length
        colour = self.skin * (1 - share) + self.hair * 0.85 * share
        region = SKIN if style == "stubble" else HAIR
        lips = {name: self.curves[name] for name in ("lips", "opening")}
        kept, known = self.colours.copy(), self.regions.copy()
        for curve in {"goatee": ("goatee", "moustache"), "moustache": ("moustache",)}.get(style, ("full", "moustache")):
            self.fill(curve, colour, region)
        mask = np.zeros_like(self.regions)
        cv2.fillPoly(mask, [lips["lips"]], 255, cv2.LINE_8, SHIFT)
        for side in ("0", "1"):
            cv2.fillPoly(mask, [self.curves["under" + side], self.curves["wing" + side]], 255, cv2.LINE_8, SHIFT)
        cv2.copyTo(kept, mask, self.colours)
        cv2.copyTo(known, mask, self.regions)

    def cap(self) -> None:
        """Paints the hair around the face, with strands, and ears that are in front of it."""
        long = self.number["length"] > 0.5
        if self.number["volume"] > 0:
            mask = np.zeros_like(self.regions)
            outline = self.curves["scalp"]
            cv2.fillPoly(mask, [self.hull(outline)], 255, cv2.LINE_AA, SHIFT)
            if long:
                cv2.fillPoly(mask, [self.hull(self.curves["ends"])], 255, cv2.LINE_AA, SHIFT)
            if self.number["curl"] > 0.5:
                radius = int(0.13 * self.unit * 2**SHIFT)
                for point in self.hull(outline)[::2]:
                    cv2.circle(mask, _pair(point), radius, 255, -1, cv2.LINE_AA, SHIFT)
            cv2.fillPoly(mask, [self.curves["opening_of_hair"]], 0, cv2.LINE_AA, SHIFT)
            share = mask.astype(np.uint16)[..., None]
            colour = np.array(_eight_bits(self.hair), np.uint16)
            self.colours[:] = ((self.colours * (255 - share) + colour * share + 127) // 255).astype(np.uint8)
            inside = mask > 127
            self.regions[inside] = HAIR
            strands = np.full_like(self.shades, NEUTRAL)
            for number in range(14):
                strength = (0.22, -0.14, 0.1)[number % 3]
                thick = max(1, round(0.035 * self.unit))
                curve = [self.curves[f"strand{number}"]]
                cv2.polylines(strands, curve, False, _shade(strength), thick, cv2.LINE_AA, SHIFT)
            self.shades[inside] = strands[inside]
        for side in ("0", "1"):
            if self.depths["ear" + side] > 0.02 and not long:
                self.fill("ear" + side, self.skin * 0.9, SKIN)
                self.fill(
                    (
                        (self.curves["ear" + side] - self.curves["ear" + side].mean(0)) * 0.55
                        + self.curves["ear" + side].mean(0)
                    ).astype(np.int32),
                    self.skin * 0.72,
                )

    def spectacles(self) -> None:
        """Paints glasses."""
        colour = self.face.trait("frame_colour")[0]
        width = 0.024 + 0.03 * self.face.number("lens_width")
        far = {"0": self.face.pose[0, 0] < -0.15, "1": self.face.pose[0, 0] > 0.15}
        for side in ("0", "1"):
            self.stroke("rim" + side, colour, width, closed=True)
            if not far[side]:
                self.stroke("temple" + side, colour, width)
        bridge = np.concatenate([self.curves["hinge0"], self.curves["hinge1"]])
        thick = max(1, round(width * self.unit))
        cv2.polylines(self.colours, [bridge], False, _eight_bits(colour), thick, cv2.LINE_AA, SHIFT)

    def lit(self, behind: Float32[np.ndarray, "size size 3"]) -> UInt8[np.ndarray, "size size 3"]:
        """Lights the head, puts it in front of the photograph, and returns the picture."""
        face, size = self.face, self.size
        shades = cv2.resize(cv2.GaussianBlur(self.shades, (5, 5), 0), (size, size), interpolation=cv2.INTER_AREA)
        there = (self.regions > 0).astype(np.uint8) * 255
        share = cv2.resize(there, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32)[..., None] / 255
        self.regions[self.regions == 255] = BACKGROUND
        colours = cv2.resize(self.colours, (size, size), interpolation=cv2.INTER_AREA).astype(np.float32) / 255
        factor = _lighting(face, size) * (shades.astype(np.float32) / NEUTRAL)
        picture = colours * factor[..., None] + (1 - share) * behind
        picture = picture * face.trait("tint")[0]
        return np.round(np.clip(picture, 0, 1) * 255).astype(np.uint8)


def _light(face: Faces) -> Float32[np.ndarray, "3"]:
    """Returns the direction from which the light comes."""
    azimuth, elevation = (face.number(name) for name in ("azimuth", "elevation"))
    return np.array(
        [np.sin(azimuth) * np.cos(elevation), -np.sin(elevation), np.cos(azimuth) * np.cos(elevation)], np.float32
    )


def _lighting(face: Faces, size: int) -> Float32[np.ndarray, "size size"]:
    """Returns the light on an ellipsoid in place of the head."""
    scale = geometry.HEIGHT * face.number("scale") * size
    x, y = (size * (0.5 + face.number(name)) for name in ("x", "y"))
    roll = float(face.pose[0, 2])
    down, across = np.meshgrid(np.arange(size) + 0.5 - y, np.arange(size) + 0.5 - x, indexing="ij")
    normal_x = np.clip((across * np.cos(roll) + down * np.sin(roll)) / (0.95 * scale), -1, 1)
    normal_y = np.clip((down * np.cos(roll) - across * np.sin(roll)) / (1.25 * scale), -1, 1)
    normal_z = np.sqrt(np.clip(1 - normal_x**2 - normal_y**2, 0.02, 1))
    light = _light(face)
    met = np.maximum(0, normal_x * light[0] + normal_y * light[1] + normal_z * light[2])
    return (face.number("ambient") + face.number("strength") * met).astype(np.float32)


def _photograph(face: Faces, size: int) -> Float32[np.ndarray, "size size 3"]:
    """Returns a square of a photograph, or a plain grey if its side is 0."""
    side = face.number("side")
    if side == 0:
        return np.full((size, size, 3), 0.6, np.float32)
    picture = _shrunk(PHOTOGRAPHS[int(face.number("photograph"))], size)
    height, width = picture.shape[:2]
    length = max(8, int(min(height, width) * side))
    left = int(face.number("left") * (width - length))
    top = int(face.number("top") * (height - length))
    square = picture[top : top + length, left : left + length]
    square = cv2.resize(square, (size, size), interpolation=cv2.INTER_AREA if length > size else cv2.INTER_LINEAR)
    if face.number("mirrored") > 0.5:
        square = square[:, ::-1]
    return square.astype(np.float32) / 255


@functools.lru_cache(maxsize=64)
def _shrunk(name: str, size: int) -> UInt8[np.ndarray, "height width 3"]:
    picture = photos.read(name)
    share = min(1, 2 * size / min(picture.shape[:2]))
    return cv2.resize(picture, None, fx=share, fy=share, interpolation=cv2.INTER_AREA)


def _eight_bits(colour: np.ndarray) -> tuple[int, ...]:
    return tuple(int(value) for value in np.clip(np.asarray(colour) * 255 + 0.5, 0, 255))


def _shade(strength: float) -> int:
    return int(np.clip(NEUTRAL * (1 - strength) + 0.5, 0, 255))


def _pair(point: np.ndarray) -> tuple[int, int]:
    return int(point[0]), int(point[1])
