"""Random people as skeletons in space: proportions, poses within the limits of joints, clothes, and the camera.

Lengths are shares of a person's height. In the frame of a body x is the person's left, y is up and z is forward; in
that of the camera x is right, y is up and z comes nearer. A person who faces the camera has both frames in one.
"""

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Float

Point = Float[np.ndarray, "3"]
Turn = Float[np.ndarray, "3 3"]

SIDES = {"left": 1, "right": -1}
# Least and most of each length, and of the radii of limbs at their thicker ends.
LENGTHS = {
    "shoulder": (0.10, 0.125),  # from the middle
    "hip": (0.05, 0.07),
    "torso": (0.28, 0.31),
    "neck": (0.035, 0.05),
    "head": (0.075, 0.095),  # half its width
    "upper_arm": (0.16, 0.18),
    "forearm": (0.14, 0.16),
    "thigh": (0.235, 0.26),
    "shin": (0.225, 0.25),
    "foot": (0.075, 0.09),
    "arm_radius": (0.03, 0.04),
    "leg_radius": (0.042, 0.056),
    "chest_radius": (0.062, 0.085),
}
# Directions from the middle of a head; the face looks along z.
FACE = {
    "nose": (0.0, -0.12, 1.0),
    "left_eye": (0.42, 0.16, 0.9),
    "right_eye": (-0.42, 0.16, 0.9),
    "left_ear": (1.0, 0.0, -0.1),
    "right_ear": (-1.0, 0.0, -0.1),
}
FACE = {name: np.array(direction) / np.linalg.norm(direction) for name, direction in FACE.items()}
SKINS = np.array([(0.98, 0.84, 0.72), (0.92, 0.72, 0.56), (0.76, 0.56, 0.40), (0.52, 0.35, 0.24), (0.34, 0.22, 0.16)])
HAIRS = np.array([(0.10, 0.08, 0.07), (0.30, 0.18, 0.10), (0.60, 0.40, 0.18), (0.86, 0.70, 0.40), (0.70, 0.70, 0.70)])


@dataclasses.dataclass(frozen=True)
class Figure:
    """A person as the camera sees it, in shares of the height.

    Attributes:
      points: COCO's joints, and `pelvis`, `chest`, `head`, and hands and toes of both sides.
      head: turn from the head's frame to the camera's.
      chest: turn from the torso's frame to the camera's.
      size: the lengths of `LENGTHS`.
      colours: of skin, hair, shirt, trousers, shoes and badge.
      clothes: numbers that choose what is worn, such as `sleeves`: 0 none, 1 short, 2 long.
    """

    pose: str
    points: Mapping[str, Point]
    head: Turn
    chest: Turn
    size: Mapping[str, float]
    colours: Mapping[str, Point]
    clothes: Mapping[str, int]


@dataclasses.dataclass
class Bend:
    """Angles of a pose, in degrees; those of arms and legs are by side.

    Attributes:
      lean: of the torso, forward and to the person's left.
      arms: forward, sideways, of the elbow, and how far the forearm bends inward instead of forward.
      legs: forward, sideways, of the knee.
      look: turn of the head to the person's left, and nod.
    """

    lean: tuple[float, float]
    arms: dict[str, tuple[float, float, float, float]]
    legs: dict[str, tuple[float, float, float]]
    look: tuple[float, float]


class Draw:
    """Draws angles uniformly."""

    def __init__(self, generator: np.random.Generator):
        self.generator = generator

    def __call__(self, *ranges: tuple[float | int, float | int]) -> tuple[float, ...]:
        """Returns a number of each range."""
        return tuple(float(self.generator.uniform(*each)) for each in ranges)

    def both(self, *ranges: tuple[float | int, float | int]) -> dict[str, tuple[float, ...]]:
        """Returns numbers for the left and for the right."""
        return {side: self(*ranges) for side in SIDES}

    def side(self) -> str:
        """Returns one of the two sides."""
        return str(self.generator.choice(list(SIDES)))


def _stand(draw: Draw) -> Bend:
    arms = draw.both((-15, 25), (6, 28), (0, 45), (0, 40))
    return Bend(draw((-4, 8), (-6, 6)), arms, draw.both((-6, 8), (2, 12), (0, 10)), draw((-50, 50), (-10, 25)))


def _walk(draw: Draw) -> Bend:
    front = draw.side()
    legs, arms = {}, {}
    for side in SIDES:
        if side == front:
            legs[side], arms[side] = draw((18, 38), (0, 6), (0, 20)), draw((-35, -10), (4, 14), (5, 45), (0, 30))
        else:
            legs[side], arms[side] = draw((-24, -6), (0, 6), (8, 55)), draw((12, 45), (4, 14), (15, 80), (0, 40))
    return Bend(draw((0, 12), (-4, 4)), arms, legs, draw((-30, 30), (-10, 20)))


def _arms_up(draw: Draw) -> Bend:
    bend, first = _stand(draw), draw.side()
    both = draw.generator.random() < 0.6
    for side in SIDES:
        if both or side == first:
            if draw.generator.random() < 0.7:
                bend.arms[side] = draw((0, 15), (85, 165), (0, 90), (-90, 0))
            else:
                bend.arms[side] = draw((80, 165), (5, 30), (0, 70), (0, 20))
    return bend


def _akimbo(draw: Draw) -> Bend:
    bend, first = _stand(draw), draw.side()
    for side in SIDES:
        if draw.generator.random() < 0.7 or side == first:
            bend.arms[side] = draw((-15, 10), (38, 58), (85, 110), (70, 95))
    return bend


def _bent(draw: Draw) -> Bend:
    bow = draw((40, 85))[0]
    legs = draw.both((0, 30), (2, 16), (5, 45))
    swings = draw.both((-10, 35), (4, 22), (0, 50), (0, 40))
    arms = {side: (0.8 * bow + swing, *others) for side, (swing, *others) in swings.items()}  # they hang
    return Bend((bow, *draw((-8, 8))), arms, legs, draw((-25, 25), (-45, 0)))


def _sit(draw: Draw) -> Bend:
    arms = draw.both((5, 55), (4, 28), (15, 95), (0, 50))
    legs = draw.both((70, 98), (4, 26), (65, 100))
    return Bend(draw((-6, 22), (-6, 6)), arms, legs, draw((-50, 50), (-10, 25)))


def _squat(draw: Draw) -> Bend:
    arms = draw.both((20, 90), (4, 35), (10, 70), (0, 40))
    legs = draw.both((80, 118), (12, 38), (100, 138))
    return Bend(draw((15, 45), (-6, 6)), arms, legs, draw((-35, 35), (-30, 10)))


def _star(draw: Draw) -> Bend:
    arms = draw.both((-5, 20), (65, 150), (0, 35), (-60, 0))
    return Bend(draw((-4, 6), (-10, 10)), arms, draw.both((-5, 15), (16, 40), (0, 30)), draw((-30, 30), (-20, 15)))


POSES: Mapping[str, Callable[[Draw], Bend]] = {
    "stand": _stand,
    "walk": _walk,
    "arms_up": _arms_up,
    "akimbo": _akimbo,
    "bent": _bent,
    "sit": _sit,
    "squat": _squat,
    "star": _star,
}


def sample_figure(
    generator: np.random.Generator, pose: str | None = None, yaw: float | None = None, facing: float = 0.4
) -> Figure:
    """Draws a person.

    `yaw` is how far it turns to its left from facing the camera, in radians; None: little in a share `facing` of all,
    and any in the others.
    """
    pose = pose or str(generator.choice(list(POSES)))
    bend = POSES[pose](Draw(generator))
    size = {name: float(generator.uniform(*ends)) for name, ends in LENGTHS.items()}
    drawn = generator.normal(0, 0.45) if generator.random() < facing else generator.uniform(-np.pi, np.pi)
    roll, elevation = np.radians([generator.uniform(-8, 8), generator.uniform(-4, 18)])
    camera = turn_z(roll) @ turn_x(elevation) @ turn_y(drawn if yaw is None else yaw)
    twist, (look, nod) = generator.uniform(-15, 15), bend.look
    torso = camera @ turn_x(np.radians(bend.lean[0])) @ turn_z(np.radians(bend.lean[1])) @ turn_y(np.radians(twist))
    head = torso @ turn_y(np.radians(look)) @ turn_x(np.radians(nod))
    points = _skeleton(size, bend, camera, torso, head)
    return Figure(pose, points, head, torso, size, *_looks(generator))


def _skeleton(size: Mapping[str, float], bend: Bend, camera: Turn, torso: Turn, head: Turn) -> dict[str, Point]:
    """Returns the points of a body, the pelvis at the origin."""
    along = {"pelvis": 0.0, "chest": 0.7, "neck": 1.0}
    points = {name: torso @ [0, share * size["torso"], 0] for name, share in along.items()}
    up = torso @ [0, size["neck"], 0] + head @ [0, 1.1 * size["head"], 0.015]
    points["head"] = points["neck"] + up
    wide = size["head"] * np.array([1, TALL, 1])
    for name, direction in FACE.items():
        points[name] = points["head"] + wide * (head @ direction)
    for side, sign in SIDES.items():
        forward, outward, elbow, inward = np.radians(bend.arms[side])
        limb = torso @ turn_z(sign * outward) @ turn_x(-forward)
        down, bent = limb @ [0, -1, 0], limb @ turn_y(-sign * inward) @ [0, 0, 1]
        shoulder = torso @ [sign * size["shoulder"], size["torso"] - 0.01, 0]
        lower = np.cos(elbow) * down + np.sin(elbow) * bent
        points[f"{side}_shoulder"] = shoulder
        points[f"{side}_elbow"] = shoulder + size["upper_arm"] * down
        points[f"{side}_wrist"] = points[f"{side}_elbow"] + size["forearm"] * lower
        points[f"{side}_hand"] = points[f"{side}_wrist"] + 0.03 * lower
        forward, outward, knee = np.radians(bend.legs[side])
        limb = camera @ turn_z(sign * outward) @ turn_x(-forward)
        down, back = limb @ [0, -1, 0], limb @ [0, 0, -1]
        lower, toes = np.cos(knee) * down + np.sin(knee) * back, np.sin(knee) * down - np.cos(knee) * back
        points[f"{side}_hip"] = camera @ [sign * size["hip"], 0, 0]
        points[f"{side}_knee"] = points[f"{side}_hip"] + size["thigh"] * down
        points[f"{side}_ankle"] = points[f"{side}_knee"] + size["shin"] * lower
        points[f"{side}_toes"] = points[f"{side}_ankle"] + 0.025 * lower + size["foot"] * toes
    return points


TALL = 1.22  # height of a head over its width


def _looks(generator: np.random.Generator) -> tuple[dict[str, Point], dict[str, int]]:
    """Draws colours and clothes."""
    colours = {"skin": _between(generator, SKINS), "hair": _between(generator, HAIRS)}
    colours |= {name: generator.uniform(0.05, 0.95, 3) for name in ("shirt", "badge")}
    colours |= {"trousers": generator.uniform(0.05, 0.75, 3), "shoes": generator.uniform(0.02, 1, 1).repeat(3)}
    choices = {"sleeves": 3, "legs": 3, "hair": 3, "badge": 2, "neckline": 2}
    return colours, {name: int(generator.integers(most)) for name, most in choices.items()}


def _between(generator: np.random.Generator, palette: Float[np.ndarray, "colours 3"]) -> Point:
    """Draws a colour between two neighbours of a palette."""
    place = generator.uniform(0, len(palette) - 1)
    share = place - int(place)
    return (1 - share) * palette[int(place)] + share * palette[int(place) + 1]


def turn_x(angle: float) -> Turn:
    """Returns the turn from y to z."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]])


def turn_y(angle: float) -> Turn:
    """Returns the turn from z to x."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, 0, sin], [0, 1, 0], [-sin, 0, cos]])


def turn_z(angle: float) -> Turn:
    """Returns the turn from x to y."""
    cos, sin = np.cos(angle), np.sin(angle)
    return np.array([[cos, -sin, 0], [sin, cos, 0], [0, 0, 1]])
