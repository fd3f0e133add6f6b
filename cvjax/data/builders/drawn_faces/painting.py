"""Paints a face: polygons from back to front on a fine canvas, with canvases of regions and of shades beside it."""

from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Int32, UInt8

from cvjax.data.builders.drawn_faces import camera, geometry
from cvjax.data.builders.drawn_faces.parameters import BEARDS

REGIONS = ("background", "skin", "hair", "eyes", "brows", "nose", "mouth")
BACKGROUND, SKIN, HAIR, EYES, BROWS, NOSE, MOUTH = range(len(REGIONS))
CLOTHES = 255  # on the canvas of regions while a face is painted; they end as background
FINE = 3  # pixels of the canvas per pixel of the picture; odd, so that one is in the middle
SHIFT = 4  # binary digits behind the point of OpenCV's coordinates
NEUTRAL = 128  # of the canvas of shades, which multiply colours
SKULL = ((0, 8), (4, 10), (6, 12), (9, 13))  # rings of the head whose convex hulls together are its outline

Colour = Float[np.ndarray, "3"]


class Face:
    """A face that is being painted.

    Attributes:
      curves: in fixed-point pixels of the canvas.
      value: the parameters that are single numbers, and `ageing`, `light_x`, and the depths `ear0` and `ear1`.
      colour: those that are colours.
    """

    def __init__(
        self,
        curves: Mapping[str, Int32[np.ndarray, "_ 2"]],
        value: Mapping[str, float],
        colour: Mapping[str, Colour],
        size: int,
    ):
        self.curves, self.value, self.colour = curves, value, colour
        side = size * FINE
        self.unit = side * camera.HEIGHT * value["scale"]  # of the head's coordinates, in pixels
        self.skin = colour["skin"] * (1 - 0.06 * value["ageing"])
        grey = min(max((value["age"] - 45) / 50, 0), 0.6)
        self.hair = colour["hair_colour"] * (1 - grey) + 0.74 * grey
        self.long = value["length"] > 0.5
        self.colours = np.zeros((side, side, 3), np.uint8)
        self.regions = np.zeros((side, side), np.uint8)
        self.shades = np.full((side, side), NEUTRAL, np.uint8)

    def paint(self) -> None:
        """Paints all parts."""
        self.back_hair()
        self.body()
        self.head()
        self.marks()
        self.creases()
        for side in ("0", "1"):
            self.eye(side)
            self.fill("brow" + side, self.hair * 0.62 + 0.1 * self.skin, BROWS)
        self.nose()
        self.mouth()
        self.facial_hair()
        self.front_hair()
        self.ears_in_front()
        if self.value["glasses"] > 0.5:
            self.spectacles()

    def shrunk(self, size: int) -> tuple[UInt8[np.ndarray, "size size 5"], UInt8[np.ndarray, "size size"]]:
        """Returns colours, shades and how much of each pixel is covered; and the region of each pixel's middle."""
        covered = (self.regions > 0).view(np.uint8) * np.uint8(255)
        together = cv2.merge([self.colours, cv2.GaussianBlur(self.shades, (5, 5), 0), covered])
        regions = self.regions[FINE // 2 :: FINE, FINE // 2 :: FINE].copy()
        regions[regions == CLOTHES] = BACKGROUND
        return cv2.resize(together, (size, size), interpolation=cv2.INTER_AREA), regions

    # --- brushes ------------------------------------------------------------------------------------------------------

    def fill(self, curve: str | np.ndarray, colour: Colour, region: int | None = None) -> None:
        """Fills a closed curve on the canvas of colours and, where a region is given, of regions."""
        points = [self.curves[curve] if isinstance(curve, str) else curve]
        # Where it may be an outline against the background, it covers the same pixels of both canvases.
        edge = cv2.LINE_AA if region is None else cv2.LINE_8
        cv2.fillPoly(self.colours, points, _levels(colour), edge, SHIFT)
        if region is not None:
            cv2.fillPoly(self.regions, points, region, cv2.LINE_8, SHIFT)

    def shade(self, curve: str, strength: float) -> None:
        """Darkens a closed curve by a share, or lightens it by a negative one."""
        cv2.fillPoly(self.shades, [self.curves[curve]], _shade(strength), cv2.LINE_AA, SHIFT)

    def line(self, curve: str, strength: float, width: float) -> None:
        """Darkens an open curve by a share; the width is in units of the head."""
        if abs(strength) > 0.04:
            points = [self.curves[curve]]
            cv2.polylines(self.shades, points, False, _shade(strength), self.pixels(width), cv2.LINE_AA, SHIFT)

    def stroke(self, curve: str, colour: Colour, width: float, closed: bool = False) -> None:
        """Draws a line of a colour."""
        points = [self.curves[curve]]
        cv2.polylines(self.colours, points, closed, _levels(colour), self.pixels(width), cv2.LINE_AA, SHIFT)

    def dot(self, canvas: np.ndarray, centre: np.ndarray, radius: float, colour: Sequence[int]) -> None:
        """Fills a circle; the radius is in units of the head."""
        x, y = centre.tolist()
        cv2.circle(canvas, (x, y), int(radius * self.unit * 2**SHIFT), colour, -1, cv2.LINE_AA, SHIFT)

    def pixels(self, width: float) -> int:
        """Returns the width of a line in whole pixels of the canvas."""
        return max(1, round(width * self.unit))

    # --- from back to front -------------------------------------------------------------------------------------------

    def back_hair(self) -> None:
        """Paints long hair that falls behind the neck."""
        if self.value["volume"] > 0 and self.long:
            self.fill(_hull(np.concatenate([self.curves["scalp"], self.curves["ends"]])), self.hair * 0.72, HAIR)

    def body(self) -> None:
        """Paints clothes and neck."""
        self.fill("torso", self.colour["clothes"], CLOTHES)
        self.fill("collar", self.skin * 0.8, SKIN)
        self.fill("neck", self.skin * 0.74, SKIN)

    def head(self) -> None:
        """Paints ears and head."""
        for side in ("0", "1"):
            self.fill("ear" + side, self.skin * 0.88, SKIN)
        rings = self.curves["head"].reshape(geometry.RINGS, geometry.AROUND, 2)
        for first, last in SKULL:
            self.fill(_hull(rings[first:last].reshape(-1, 2)), self.skin, SKIN)

    def marks(self) -> None:
        """Paints moles and freckles."""
        freckles = self.value["freckles"]
        if freckles > 0:
            colour = _levels(self.skin * (1 - 0.3 * freckles) * np.array([1, 0.9, 0.82]))
            for centre in self.curves["freckles"]:
                self.dot(self.colours, centre, 0.016, colour)
        for number, centre in enumerate(self.curves["marks"]):
            if self.value[f"mark{number}"] > 0:
                self.dot(self.colours, centre, self.value[f"mark{number}"], _levels(self.skin * 0.42))

    def creases(self) -> None:
        """Shades the sockets of the eyes, and draws the lines of age and of expression."""
        age, smile = self.value["ageing"], max(0.0, self.value["smile"])
        for side in ("0", "1"):
            self.shade("socket" + side, 0.10 + 0.05 * age)
            self.line("crease" + side, 0.3, 0.022)
            self.line("bag" + side, 0.06 + 0.3 * age, 0.03)
            self.line("fold" + side, 0.05 + 0.32 * age + 0.18 * smile, 0.035)
            self.line("marionette" + side, 0.34 * age, 0.03)
            self.line("jowl" + side, 0.2 * age, 0.05)
            self.line("between" + side, 0.18 * age + 0.3 * self.value["frown"], 0.025)
            for number in range(3):
                self.line(f"foot{number}_{side}", (0.36 + 0.1 * smile) * age, 0.02)
        for number in range(3):
            self.line(f"forehead{number}", 0.36 * age + 0.2 * max(0.0, self.value["brows"]), 0.026)

    def eye(self, side: str) -> None:
        """Paints an eye, whose lids cut the iris."""
        outline = self.curves["eye" + side]
        self.fill(outline, np.array([0.93, 0.92, 0.9]), EYES)
        left, top = np.maximum((outline.min(0) >> SHIFT) - 1, 0).tolist()
        right, bottom = ((outline.max(0) >> SHIFT) + 2).tolist()
        patch = self.colours[top:bottom, left:right]
        if patch.size:
            iris, corner = patch.copy(), np.array([left << SHIFT, top << SHIFT])
            colour = _levels(self.colour["eye_colour"] * 0.9)
            cv2.fillPoly(iris, [self.curves["iris" + side] - corner], colour, cv2.LINE_AA, SHIFT)
            self.dot(iris, self.curves["pupil" + side][0] - corner, 0.032, (14, 10, 10))
            self.dot(iris, self.curves["glint" + side][0] - corner, 0.017, (250, 250, 250))
            mask = np.zeros(patch.shape[:2], np.uint8)
            cv2.fillPoly(mask, [outline - corner], 255, cv2.LINE_8, SHIFT)
            cv2.copyTo(iris, mask, patch)
        self.stroke("lower" + side, self.skin * 0.62, 0.012)
        self.stroke("lid" + side, self.skin * 0.14, 0.034)

    def nose(self) -> None:
        """Paints the nose as planes that the light meets at different angles."""
        for side in ("0", "1"):
            self.fill("flank" + side, self.skin, NOSE)
            self.fill("under" + side, self.skin * 0.84, NOSE)
        for side, sign in (("0", -1.0), ("1", 1.0)):
            facing = sign * (0.31 * self.value["light_x"] + 0.1 * self.value["yaw"])
            self.shade("flank" + side, min(max(0.10 - facing, -0.12), 0.42))
            self.line("alar" + side, 0.34, 0.026)
            self.dot(self.colours, self.curves["nostril" + side][0], 0.031, _levels(self.skin * 0.3))
        self.line("bridge", -0.12, 0.05)

    def mouth(self) -> None:
        """Paints the lips and, where they are open, teeth."""
        lips = self.skin * np.array([0.80, 0.50, 0.50]) + np.array([0.06, 0.01, 0.02])
        self.fill("lips", lips, MOUTH)
        self.fill(np.concatenate([self.curves["top"], self.curves["inner_top"][::-1]]), lips * 0.84)
        if self.value["open"] > 0.08:
            self.fill("opening", np.array([0.22, 0.07, 0.07]))
            self.fill("teeth", np.array([0.93, 0.91, 0.86]))
        else:
            self.stroke("inner_top", lips * 0.5, 0.02)
        self.line("chin_fold", 0.16, 0.05)

    def facial_hair(self) -> None:
        """Paints a beard of the identity's style around mouth and nose, if it is there."""
        style, length = BEARDS[int(self.value["beard_style"])], self.value["beard"]
        if style == "none" or length < 0.05:
            return
        share = 0.34 if style == "stubble" else 0.6 + 0.35 * length
        colour = self.skin * (1 - share) + self.hair * 0.85 * share
        colours, regions, mask = self.colours.copy(), self.regions.copy(), np.zeros_like(self.regions)
        for curve in {"goatee": ("goatee", "moustache"), "moustache": ("moustache",)}.get(style, ("full", "moustache")):
            self.fill(curve, colour, SKIN if style == "stubble" else HAIR)
        # One by one: in one call the parts that two curves share would be left out.
        for curve in ("lips", "under0", "under1", "wing0", "wing1"):
            cv2.fillPoly(mask, [self.curves[curve]], 255, cv2.LINE_8, SHIFT)
        cv2.copyTo(colours, mask, self.colours)
        cv2.copyTo(regions, mask, self.regions)

    def front_hair(self) -> None:
        """Paints the hair around the face, in strands."""
        if self.value["volume"] <= 0:
            return
        mask = np.zeros_like(self.regions)
        scalp = _hull(self.curves["scalp"])
        cv2.fillPoly(mask, [scalp], 255, cv2.LINE_8, SHIFT)
        if self.long:
            cv2.fillPoly(mask, [_hull(self.curves["ends"])], 255, cv2.LINE_8, SHIFT)
        if self.value["curl"] > 0.5:
            for point in scalp[::2]:
                self.dot(mask, point, 0.13, (255,))
        cv2.fillPoly(mask, [self.curves["opening_of_hair"]], 0, cv2.LINE_8, SHIFT)
        mask[mask > 0] = 255
        strands = np.full_like(self.shades, NEUTRAL)
        for number in range(geometry.STRANDS):
            curve, strength = [self.curves[f"strand{number}"]], (0.22, -0.14, 0.1)[number % 3]
            cv2.polylines(strands, curve, False, _shade(strength), self.pixels(0.035), cv2.LINE_AA, SHIFT)
        cv2.copyTo(strands, mask, self.shades)
        cv2.copyTo(np.full_like(self.regions, HAIR), mask, self.regions)
        cv2.copyTo(np.full_like(self.colours, _levels(self.hair)), mask, self.colours)

    def ears_in_front(self) -> None:
        """Paints the ear that the head is turned to show."""
        for side in ("0", "1"):
            if self.value["ear" + side] > 0.02 and not self.long:
                self.fill("ear" + side, self.skin * 0.9, SKIN)
                self.fill("concha" + side, self.skin * 0.72)

    def spectacles(self) -> None:
        """Paints glasses; their regions are those of what is behind them."""
        colour = self.colour["frame_colour"]
        width = 0.024 + 0.03 * self.value["lens_width"]
        for side, turned in (("0", -self.value["yaw"]), ("1", self.value["yaw"])):
            self.stroke("rim" + side, colour, width, closed=True)
            if turned < 0.15:
                self.stroke("temple" + side, colour, width)
        self.stroke("bridge_of_glasses", colour, width)


def _hull(points: Int32[np.ndarray, "points 2"]) -> Int32[np.ndarray, "_ 2"]:
    return cv2.convexHull(points)[:, 0]


def _levels(colour: Colour) -> list[int]:
    return [min(255, max(0, int(value * 255 + 0.5))) for value in colour.tolist()]


def _shade(strength: float) -> int:
    return min(255, max(0, int(NEUTRAL * (1 - strength) + 0.5)))
