"""Paints a person: parts of the body from far to near on a fine canvas, with a canvas of their numbers beside it."""

import dataclasses
from collections.abc import Mapping, Sequence

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int32, UInt8

from cvjax.data import people
from cvjax.data.builders.drawn_people.figure import FACE, SIDES, TALL, Figure

TWICE = ("upper_arm", "forearm", "hand", "thigh", "shin", "foot", "ear")  # of both sides
PARTS = ("pelvis", "torso", "neck", "head", "hair", "skirt", *(f"{side}_{part}" for side in SIDES for part in TWICE))
NUMBERS = {part: 1 + place for place, part in enumerate(PARTS)}  # on the canvas; 0 is background
FINE = 3  # pixels of the canvas per pixel of the scene; odd, so that one is in the middle
SHIFT = 4  # binary digits behind the point of OpenCV's coordinates
EDGE = 1.0  # width of dark edges, in pixels of the canvas
DARK = 0.62  # their colour's share of the part's
MARGIN = 0.12  # around the points of a body, as a share of its height
BEHIND = 0.05  # a hip or shoulder this much farther than the middle of the torso is hidden by the torso
TURNED = 0.12  # least share with which a feature of the face looks to the camera to be visible
MOUTH = np.array([0, -0.52, 0.854])  # directions from the middle of a head, as in `FACE`
CROWN = np.array([0, 0.62, -0.785])
LIPS = np.array([0.75, 0.4, 0.4])  # their colour's share of the skin's
CIRCLE = np.stack([f(np.linspace(0, 2 * np.pi, 16, endpoint=False)) for f in (np.cos, np.sin)], -1)
# What a joint is part of: it is hidden below any other part.
OWNERS = {name: ("head",) for name in FACE} | {f"{side}_ear": (f"{side}_ear", "head") for side in SIDES}
for _side in SIDES:
    OWNERS |= {
        f"{_side}_shoulder": ("torso", "neck", f"{_side}_upper_arm"),
        f"{_side}_elbow": (f"{_side}_upper_arm", f"{_side}_forearm"),
        f"{_side}_wrist": (f"{_side}_forearm", f"{_side}_hand"),
        f"{_side}_hip": ("torso", "pelvis", "skirt", f"{_side}_thigh"),
        f"{_side}_knee": (f"{_side}_thigh", f"{_side}_shin", "skirt"),
        f"{_side}_ankle": (f"{_side}_shin", f"{_side}_foot"),
    }
ALLOWED = np.zeros((len(people.JOINTS), 1 + len(PARTS)), bool)
for _row, _joint in enumerate(people.JOINTS):
    ALLOWED[_row, [NUMBERS[part] for part in OWNERS[_joint]]] = True


@dataclasses.dataclass
class Painted:
    """A painted person; the upper left corner of the canvases is at `top` and `left` of a scene, in its pixels.

    Attributes:
      colours, parts: canvases of `FINE` pixels a pixel; the parts are numbered as in `NUMBERS`.
      joints: x, y of COCO's joints from that corner, in pixels of the scene.
      turned: whether each joint is on the side of the body that looks to the camera.
    """

    pose: str
    colours: UInt8[np.ndarray, "rows columns 3"]
    parts: UInt8[np.ndarray, "rows columns"]
    joints: Float32[np.ndarray, "17 2"]
    turned: np.ndarray
    top: int = 0
    left: int = 0

    @property
    def mask(self) -> np.ndarray:
        """Whether the middle of each pixel of the scene is the person's, without what may cover it."""
        return self.parts[FINE // 2 :: FINE, FINE // 2 :: FINE] > 0


def paint(figure: Figure, height: float) -> Painted:
    """Paints a person whose body is `height` pixels high where it stands upright."""
    flat = {name: height * point[:2] * (1, -1) for name, point in figure.points.items()}
    together = np.stack(list(flat.values()))
    low = np.floor(together.min(0) - MARGIN * height)
    size = np.ceil(together.max(0) + MARGIN * height - low).astype(int)
    brush = _Brush(figure, {name: (point - low) * FINE for name, point in flat.items()}, height * FINE, size * FINE)
    brush.paint()
    joints = np.stack([flat[name] - low for name in people.JOINTS]).astype(np.float32)
    return Painted(figure.pose, brush.colours, brush.parts, joints, _turned(figure))


def visibility(
    joints: Float32[np.ndarray, "17 2"], turned: np.ndarray, parts: UInt8[np.ndarray, "rows columns"]
) -> Int32[np.ndarray, " 17"]:
    """Returns COCO's visibility of joints, from the parts of their person that are seen in a scene.

    `joints` are in pixels of the scene, and `parts` is a canvas of `FINE` pixels a pixel.
    """
    size = np.array(parts.shape[::-1]) / FINE
    inside = ((joints >= 0) & (joints < size)).all(1)
    padded = np.pad(parts, 1)
    columns, rows = np.where(inside[:, None], np.floor(joints * FINE), 0).astype(int).T
    around = [padded[rows + down, columns + across] for down in range(3) for across in range(3)]
    seen = np.stack([ALLOWED[np.arange(len(joints)), part] for part in around]).any(0) & turned
    return np.where(inside, np.where(seen, people.VISIBLE, people.HIDDEN), people.ABSENT).astype(np.int32)


def _turned(figure: Figure) -> np.ndarray:
    """Whether joints are on the near side of the body; those of arms and legs are always."""
    found = dict.fromkeys(people.JOINTS, True)
    for name, direction in FACE.items():
        least = -0.25 if "ear" in name else TURNED
        found[name] = (figure.head @ direction)[2] > least
        if "ear" in name and figure.clothes["hair"] == 2:  # long hair hides ears
            found[name] = False
    middle = figure.points["chest"][2], figure.points["pelvis"][2]
    for side in SIDES:
        for joint, depth in zip(("shoulder", "hip"), middle, strict=True):
            found[f"{side}_{joint}"] = figure.points[f"{side}_{joint}"][2] > depth - BEHIND
    return np.array([found[name] for name in people.JOINTS])


class _Brush:
    """A person that is being painted; `points` are in pixels of the canvas, of which a height has `unit`."""

    def __init__(self, figure: Figure, points: Mapping[str, np.ndarray], unit: float, size: np.ndarray):
        self.figure, self.points, self.unit = figure, points, unit
        columns, rows = size.tolist()
        self.colours, self.parts = np.zeros((rows, columns, 3), np.uint8), np.zeros((rows, columns), np.uint8)

    def paint(self) -> None:
        """Paints all parts, the farthest first."""
        strokes = [*self.trunk(), *self.limbs()]
        for _, function, *arguments in sorted(strokes, key=lambda stroke: stroke[0]):
            function(*arguments)

    def depth(self, *names: str) -> float:
        """Returns the mean nearness of points."""
        return float(np.mean([self.figure.points[name][2] for name in names]))

    def trunk(self) -> list[tuple]:
        """Lists what is painted of torso and head: nearness, function and its arguments."""
        size, colours, wear = self.figure.size, self.figure.colours, self.figure.clothes
        chest, hips = size["chest_radius"], [("left_hip", 0.052), ("right_hip", 0.052)]
        torso = self.depth("pelvis", "chest")
        shoulders = [("left_shoulder", 0.036), ("right_shoulder", 0.036), ("chest", chest), ("pelvis", 0.9 * chest)]
        strokes = [
            (torso - 0.004, self.hull, "pelvis", [*hips, ("pelvis", 0.06)], colours["trousers"]),
            (torso - 0.002, self.hull, "neck", [("neck", 0.032), ("head", 0.03)], colours["skin"] * 0.9),
            (torso, self.torso, [*shoulders, *((name, 0.75 * radius) for name, radius in hips)]),
            (self.depth("head"), self.head),
        ]
        if wear["legs"] == 2:
            strokes.append((self.depth("left_knee", "right_knee", "pelvis") + 0.03, self.skirt, hips))
        if wear["hair"] == 2:
            up, back = self.figure.head @ [0, 1, 0], self.figure.head @ [0, 0, -1]
            for name, place in (("top", 0.2 * up + 0.45 * back), ("ends", 0.75 * back - 1.9 * up)):
                self.points[name] = self.points["head"] + self.unit * size["head"] * place[:2] * (1, -1)
            nearness = self.depth("head") + 0.6 * size["head"] * back[2]
            strands = [("top", size["head"]), ("ends", 0.75 * size["head"])]
            strokes.append((nearness, self.hull, "hair", strands, colours["hair"] * 0.85))
        return strokes

    def limbs(self) -> list[tuple]:
        """Lists what is painted of arms and legs."""
        size, colours, wear = self.figure.size, self.figure.colours, self.figure.clothes
        arm, leg, skin = size["arm_radius"], size["leg_radius"], colours["skin"]
        strokes = []
        for side in SIDES:
            joint = {name: f"{side}_{name}" for name in ("shoulder", "elbow", "wrist", "hip", "knee", "ankle", "toes")}
            upper, lower = self.depth(joint["shoulder"], joint["elbow"]), self.depth(joint["elbow"], joint["wrist"])
            sleeve = colours["shirt"] * 0.92
            above, below = (sleeve if wear["sleeves"] >= length else skin for length in (1, 2))
            parts = [
                (upper, "upper_arm", [("shoulder", arm), ("elbow", 0.82 * arm)], above),
                (lower, "forearm", [("elbow", 0.8 * arm), ("wrist", 0.62 * arm)], below),
                (lower + 0.001, "hand", [("wrist", 0.5 * arm), ("hand", 0.028)], skin),
            ]
            joint["hand"] = f"{side}_hand"
            thigh, shin = self.depth(joint["hip"], joint["knee"]), self.depth(joint["knee"], joint["ankle"])
            cloth = colours["trousers"]
            parts += [
                (thigh, "thigh", [("hip", leg), ("knee", 0.75 * leg)], skin if wear["legs"] == 2 else cloth),
                (shin, "shin", [("knee", 0.73 * leg), ("ankle", 0.5 * leg)], cloth if wear["legs"] == 0 else skin),
                (self.depth(joint["toes"]), "foot", [("ankle", 0.03), ("toes", 0.022)], colours["shoes"]),
            ]
            for nearness, part, circles, colour in parts:
                named = [(joint[name], radius) for name, radius in circles]
                strokes.append((nearness, self.hull, f"{side}_{part}", named, colour))
        return strokes

    def hull(self, part: str, circles: Sequence[tuple[str, float]], colour: Float[np.ndarray, "3"]) -> None:
        """Fills the convex hull of circles around points, with a dark edge."""
        middles = np.stack([self.points[name] for name, _ in circles])
        radii = self.unit * np.array([radius for _, radius in circles])
        outer = cv2.convexHull(_fixed((middles[:, None] + (radii[:, None, None] + EDGE) * CIRCLE).reshape(-1, 2)))
        inner = cv2.convexHull(_fixed((middles[:, None] + radii[:, None, None] * CIRCLE).reshape(-1, 2)))
        cv2.fillConvexPoly(self.parts, outer, NUMBERS[part], cv2.LINE_8, SHIFT)
        cv2.fillConvexPoly(self.colours, outer, _levels(colour * DARK), cv2.LINE_8, SHIFT)
        cv2.fillConvexPoly(self.colours, inner, _levels(colour), cv2.LINE_8, SHIFT)

    def torso(self, circles: Sequence[tuple[str, float]]) -> None:
        """Paints the shirt; its neckline and badge are on the person's front, the badge on the left."""
        colours, wear, chest = self.figure.colours, self.figure.clothes, self.figure.chest
        self.hull("torso", circles, colours["shirt"])
        if chest[2, 2] < 0.25:  # the back
            return
        if wear["neckline"]:
            self.dot(self.points["neck"] + self.on_chest(0.0, -0.015), 0.035 * chest[2, 2] + 0.01, colours["skin"])
        if wear["badge"]:
            self.dot(self.points["neck"] + self.on_chest(0.05, -0.09), 0.02, colours["badge"])

    def on_chest(self, across: float, up: float) -> np.ndarray:
        """Returns how far a place on the front of the torso is from the neck, in pixels of the canvas."""
        place = self.figure.chest @ [across, up, 0.5 * self.figure.size["chest_radius"]]
        return self.unit * place[:2] * (1, -1)

    def skirt(self, hips: Sequence[tuple[str, float]]) -> None:
        """Paints a skirt down to the knees or a little less."""
        hem = []
        for side in SIDES:
            name = f"{side}_hem"
            self.points[name] = 0.25 * self.points[f"{side}_hip"] + 0.75 * self.points[f"{side}_knee"]
            hem.append((name, 0.06))
        self.hull("skirt", [*hips, *hem], self.figure.colours["trousers"])

    def dot(self, middle: np.ndarray, radius: float, colour: Float[np.ndarray, "3"]) -> None:
        """Fills a circle that changes no part."""
        x, y = _fixed(middle).tolist()
        radius = max(1, int(radius * self.unit * 2**SHIFT))
        cv2.circle(self.colours, (x, y), radius, _levels(colour), -1, cv2.LINE_8, SHIFT)

    def head(self) -> None:
        """Paints a head as a sphere, taller than wide, whose skin, hair and features are where it is turned to."""
        colours, turn = self.figure.colours, self.figure.head
        radius = self.figure.size["head"] * self.unit
        x, y = self.points["head"]
        window = self.window(x, y, 1.25 * radius, 1.25 * TALL * radius)
        rows, columns = (np.arange(part.start, part.stop) + 0.5 for part in window)
        across, up = np.meshgrid((columns - x) / radius, (y - rows) / (TALL * radius))
        distance = across**2 + up**2
        inside, edge = distance <= 1, (distance <= (1 + EDGE / radius) ** 2)
        normals = np.stack([across, up, np.sqrt(np.clip(1 - distance, 0, 1))], -1) @ turn  # in the head's frame
        picture, part = self.colours[window], self.parts[window]
        skin, hair = colours["skin"], colours["hair"]
        picture[edge], part[edge] = _levels(skin * DARK), NUMBERS["head"]
        picture[inside] = _levels(skin)
        nose = turn @ FACE["nose"]
        if nose[2] > -0.3 and abs(nose[0]) > 0.5:  # in profile it stands out
            self.points["tip"] = self.points["head"] + 1.12 * radius * nose[:2] * (1, -TALL)
            self.hull("head", [("tip", 0.012), ("nose", 0.012)], skin * 0.95)

        def near(direction: np.ndarray, angle: float) -> np.ndarray:
            return inside & (normals @ direction > np.cos(angle))

        picture[near(FACE["nose"], 0.2)] = _levels(skin * 0.78)
        picture[near(MOUTH, 0.24) & (np.abs(normals[..., 1] - MOUTH[1]) < 0.08)] = _levels(skin * LIPS)
        for side in SIDES:
            picture[near(FACE[f"{side}_eye"], 0.25)] = 245
            picture[near(FACE[f"{side}_eye"], 0.17)] = 20
        receding = self.figure.clothes["hair"] == 0
        picture[near(CROWN, 1.18 if receding else 1.38)] = _levels(hair)
        if self.figure.clothes["hair"] != 2:
            self.ears(radius)

    def ears(self, radius: float) -> None:
        """Paints the ears that are not behind the head."""
        for side in SIDES:
            direction = self.figure.head @ FACE[f"{side}_ear"]
            if direction[2] > -0.5:
                name = f"{side}_ear"
                self.hull(name, [(name, 0.22 * self.figure.size["head"])], self.figure.colours["skin"] * 0.88)

    def window(self, x: float, y: float, width: float, height: float) -> tuple[slice, slice]:
        """Returns the rows and columns of the canvas around a point."""
        rows, columns = self.parts.shape
        return (
            slice(max(0, int(y - height)), min(rows, int(y + height) + 2)),
            slice(max(0, int(x - width)), min(columns, int(x + width) + 2)),
        )


def _fixed(points: np.ndarray) -> Int32[np.ndarray, "..."]:
    """Converts pixels of the canvas to OpenCV's, which count from the middle of the first."""
    return np.round((points - 0.5) * 2**SHIFT).astype(np.int32)


def _levels(colour: Float[np.ndarray, "3"]) -> list[int]:
    return np.clip(np.round(np.asarray(colour) * 255), 0, 255).astype(int).tolist()
