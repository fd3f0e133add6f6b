"""The curves of drawn faces, on a head in three dimensions that looks straight ahead.

A head is about two units high, from y = -1 at the top of the skull to y = 1 at the chin, with the eyes near 0; x goes
to the right of the picture and z to the viewer. At each height the head is an ellipse, `half_width` by `depth`.
"""

import numpy as np
from jaxtyping import Float

from cvjax.data.builders.drawn_faces.parameters import Faces

Column = Float[np.ndarray, "#faces _"]
Curves = dict[str, Float[np.ndarray, "faces points 3"]]


RINGS, AROUND = 13, 16  # points of the head
STRANDS = 14
ALONG = np.linspace(-1, 1, 13)[None]  # points along an eyelid, a brow or a lip


def half_width(faces: Faces, y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "faces ..."]:
    """Returns half the width of the heads at heights `y`, of which the first axis, if any, is that of the faces."""
    wide = (
        0.735
        + 0.05 * faces.trait("head_width")
        - 0.03 * y
        + (0.015 + 0.03 * faces.trait("cheekbones")) * _bump(y, 0.2, 0.3)
        + (-0.02 + 0.075 * faces.trait("jaw_width")) * _bump(y, 0.66, 0.27)
        + (-0.06 + 0.12 * faces.trait("chin_width")) * _bump(y, 0.97, 0.14)
    )
    return wide * np.sqrt(np.clip(1 - y * y, 0, 1))


def depth(y: Float[np.ndarray, "..."]) -> Float[np.ndarray, "..."]:
    """Returns how far the front of a head is from its middle, at heights `y`."""
    return np.where(y < 0, 0.84 * np.sqrt(np.clip(1 - (0.97 * y) ** 2, 0, 1)), 0.84 - 0.2 * y**2)


def on_face(faces: Faces, x: Column, y: Column, lift: Column | float = 0.0) -> Float[np.ndarray, "faces points 3"]:
    """Returns points of the front of the head, `lift` above its surface."""
    x, y, lift, _ = np.broadcast_arrays(x, y, lift, faces.age)
    across = np.clip(x / np.maximum(half_width(faces, y), 1e-3), -0.99, 0.99)
    return np.stack([x, y, depth(y) * np.sqrt(1 - across**2) + lift], -1)


def around(
    faces: Faces, degrees: Column, y: Column, larger: Column | float = 0.0
) -> Float[np.ndarray, "faces points 3"]:
    """Returns points around the head: at 0 degrees in front, at 90 on the picture's right, at 180 behind."""
    degrees, y, larger, _ = np.broadcast_arrays(degrees, y, larger, faces.age)
    angle = np.radians(degrees)
    front = depth(y)
    back = 0.95 * np.sqrt(np.clip(1 - np.clip(y, -1, 0.4) ** 2, 0, 1)) * np.clip(1.9 - 1.5 * y, 0.3, 1)
    z = np.where(np.cos(angle) > 0, front, back) * np.cos(angle)
    return np.stack([half_width(faces, y) * np.sin(angle), y, z], -1) * (1 + larger[..., None])


def curves(faces: Faces) -> Curves:
    """Returns all curves of heads that look straight ahead; sides are "0", the picture's left, and "1"."""
    found = {"head": head(faces, 0.0), "scalp": scalp(faces)} | hair(faces) | nose(faces) | mouth(faces) | beard(faces)
    for side, sign in (("0", -1), ("1", 1)):
        parts = eye(faces, sign) | brow(faces, sign) | ear(faces, sign) | lens(faces, sign) | wrinkles(faces, sign)
        found |= {name + side: points for name, points in parts.items()}
    found["bridge_of_glasses"] = np.concatenate([found.pop("rest0"), found.pop("rest1")], 1)
    marks = faces.trait("marks").reshape(len(faces), -1, 3)
    found["marks"] = on_face(faces, marks[..., 0] * 0.7, marks[..., 1])
    spots = np.random.default_rng(5).uniform((-0.45, 0.05), (0.45, 0.42), (26, 2))
    found["freckles"] = on_face(faces, spots[None, :, 0], spots[None, :, 1])
    found["jaw"] = jaw(faces)
    lines = np.array([-0.52, -0.44, -0.36])
    across = np.linspace(-0.34, 0.34, 7)
    for number, line in enumerate(lines):
        found[f"forehead{number}"] = on_face(faces, across[None], line + 0.04 * faces.trait("forehead") + 0 * across)
    return found


def eye(faces: Faces, sign: int) -> Curves:
    """Returns an eye, its upper and lower lid, iris and pupil, crease and bag; it starts at the nose."""
    age = ageing(faces)
    x, y = _eye_centre(faces)
    wide = 0.158 * (1 + 0.2 * faces.trait("eye_width"))
    high = 0.078 * (1 + 0.32 * faces.trait("eye_height"))
    opened = np.clip(1 - 0.75 * faces.trait("squint"), 0.12, 1.35)
    tilt = -0.035 * faces.trait("eye_tilt") * ALONG
    lid = (1 - np.abs(ALONG) ** 2.2) ** 0.9
    upper = y + tilt - high * opened * (1 - 0.14 * age) * lid * (1 - 0.12 * ALONG)
    lower = y + tilt + 0.62 * high * np.clip(opened, 0.3, 1.05) * lid
    places = x + wide * ALONG

    def place(x, y, lift=0.0):
        return on_face(faces, sign * x, y, lift)

    gaze_x, gaze_y = faces.trait("gaze_x") * 0.05, faces.trait("gaze_y") * 0.02
    middle = x + sign * gaze_x
    turn = np.linspace(0, 2 * np.pi, 12, endpoint=False)[None]
    radius = 0.072 * (1 + 0.1 * faces.trait("eye_height"))
    centre = y - 0.1 * high + gaze_y
    crease = upper - 0.028 - 0.022 * faces.trait("lid") + 0.02 * age
    bag = lower + 0.055 + 0.01 * age
    return {
        "eye": np.concatenate([place(places, upper), place(places[:, ::-1], lower[:, ::-1])], 1),
        "lid": place(places, upper),
        "lower": place(places, lower),
        "iris": place(middle + radius * np.cos(turn), centre + radius * np.sin(turn)),
        "pupil": place(middle, centre),
        "glint": place(middle + sign * 0.02, centre - 0.024),
        "crease": place(places, crease),
        "bag": place(places[:, 2:-2], bag[:, 2:-2]),
        "socket": place(x + 1.35 * wide * np.cos(turn), y - 0.03 + 0.15 * np.sin(turn)),
    }


def brow(faces: Faces, sign: int) -> Curves:
    """Returns a brow as an outline, whose first half is the upper edge from the nose outwards."""
    x, y = _eye_centre(faces)
    raised, frown = faces.trait("brows"), faces.trait("frown")
    length = 0.205 * (1 + 0.15 * faces.trait("brow_length"))
    middle = y - 0.19 - 0.035 * faces.trait("brow_height") - 0.06 * raised + 0.035 * frown
    sad = np.maximum(0, -faces.trait("smile")) * (1 - frown)
    inner = (1 - ALONG) / 2
    line = middle - 0.03 * faces.trait("brow_tilt") * ALONG
    line = line - (0.035 + 0.04 * faces.trait("brow_arch") + 0.02 * raised) * (1 - (ALONG - 0.2) ** 2)
    line = line + (0.11 * frown - 0.09 * sad) * inner**1.5
    thick = 0.034 * (1 + 0.55 * faces.trait("brow_thickness")) * (0.45 + 0.55 * np.clip(1.3 * inner, 0, 1))
    places = x + 0.02 - 0.03 * frown * inner + length * ALONG
    upper, lower = (on_face(faces, sign * places, line + part * thick, 0.01) for part in (-1, 1))
    return {"brow": np.concatenate([upper, lower[:, ::-1]], 1)}


def nose(faces: Faces) -> Curves:
    """Returns the bridge, the wings, the nostrils and the planes of the nose, which stands out from the face."""
    top = 0.0 * faces.trait("nose_length")
    end = _nose_end(faces)
    out = 0.24 * (1 + 0.28 * faces.trait("nose_depth"))
    wide = 0.125 * (1 + 0.28 * faces.trait("nose_width")) + 0.012 * np.maximum(0, faces.trait("smile"))
    narrow = 0.045 * (1 + 0.35 * faces.trait("nose_bridge"))

    def ridge(share, lift):
        y = top + (end - top) * share
        return on_face(faces, np.zeros_like(y), y, lift)

    share = np.array([[0.0, 0.32, 0.64, 0.93]])
    bridge = ridge(share, out * np.array([[0.22, 0.5, 0.8, 1.0]]))
    tip = bridge[:, 3:]
    base = ridge(np.array([[1.04]]), 0.5 * out)
    sides = {}
    for side, sign in (("0", -1), ("1", 1)):
        root = on_face(faces, sign * narrow, top, 0.02)
        cheek = on_face(faces, sign * 0.72 * wide, top + 0.66 * (end - top), 0.03)
        wing = on_face(faces, sign * wide, end - 0.035, 0.05)
        foot = on_face(faces, sign * 0.7 * wide, end + 0.025, 0.07)
        ball = on_face(faces, sign * 0.42 * wide, end - 0.045, 0.85 * out)
        hole = on_face(faces, sign * 0.45 * wide, end + 0.008, 0.5 * out)
        sides |= {f"wing{side}": np.concatenate([wing, foot], 1), f"nostril{side}": hole}
        sides[f"flank{side}"] = np.concatenate(
            [bridge[:, :1], root, cheek, wing, ball, tip, bridge[:, 1:3][:, ::-1]], 1
        )
        sides[f"under{side}"] = np.concatenate([tip, ball, wing, foot, base], 1)
        sides[f"alar{side}"] = np.concatenate([cheek * 0.3 + wing * 0.7, wing, foot], 1)
    return {"bridge": bridge, "base": base, **sides}


def mouth(faces: Faces) -> Curves:
    """Returns the outlines of both lips and of the opening between them, each from the picture's left to its right."""
    smile, opened, age = faces.trait("smile"), faces.trait("open"), ageing(faces)
    wide = 0.255 * (1 + 0.2 * faces.trait("mouth_width")) * (1 + 0.2 * np.maximum(smile, 0) - 0.14 * opened)
    y = _mouth_height(faces)
    bend = np.where(smile > 0, 0.11, 0.10) * smile
    line = y + 0.35 * bend - bend * ALONG**2 + 0.02 * age * ALONG**2
    round_ = np.sqrt(np.clip(1 - ALONG**2, 0, 1))
    dip = 1 - (0.3 + 0.25 * faces.trait("cupids_bow")) * np.exp(-((ALONG / 0.2) ** 2))
    upper = 0.062 * (1 + 0.5 * faces.trait("upper_lip")) * (1 - 0.25 * age) * (1 - 0.2 * np.maximum(smile, 0))
    lower = 0.082 * (1 + 0.45 * faces.trait("lower_lip")) * (1 - 0.25 * age) * (1 - 0.15 * np.maximum(smile, 0))
    gap = opened * 0.17 * round_
    heights = {
        "top": line - 0.25 * gap - upper * (1 - np.abs(ALONG) ** 1.6) * dip,
        "inner_top": line - 0.25 * gap,
        "inner_bottom": line + 0.75 * gap,
        "bottom": line + 0.75 * gap + lower * round_**1.2,
    }
    lift = 0.045 * round_
    rows = {name: on_face(faces, wide * ALONG, height, lift) for name, height in heights.items()}
    teeth = np.minimum(rows["inner_bottom"], rows["inner_top"] + np.array([0, 0.062, 0]))
    return {
        **rows,
        "lips": np.concatenate([rows["top"], rows["bottom"][:, ::-1]], 1),
        "opening": np.concatenate([rows["inner_top"], rows["inner_bottom"][:, ::-1]], 1),
        "teeth": np.concatenate([rows["inner_top"][:, 1:-1], teeth[:, 1:-1][:, ::-1]], 1),
        "chin_fold": on_face(faces, 0.5 * wide * ALONG[:, 3:-3], rows["bottom"][:, 3:-3, 1] + 0.05, 0.0),
    }


def ear(faces: Faces, sign: int) -> Curves:
    """Returns the outline of an ear."""
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)[None]
    size = 1 + 0.25 * faces.trait("ear_size")
    angle = np.radians(38 + 18 * faces.trait("ear_angle"))
    along = 0.17 * size * np.cos(turn) * (1 - 0.25 * np.sin(turn))
    x = half_width(faces, np.full((len(faces), 1), 0.08)) - 0.03 + np.sin(angle) * (0.05 + along)
    z = -0.06 - np.cos(angle) * along
    outline = np.stack([sign * x, 0.1 + 0.22 * size * np.sin(turn), z], -1)
    middle = outline.mean(1, keepdims=True)
    return {"ear": outline, "concha": middle + 0.55 * (outline - middle)}


def lens(faces: Faces, sign: int) -> Curves:
    """Returns the rim of a lens and its temple, which goes to the ear."""
    x, y = _eye_centre(faces)
    turn = np.linspace(0, 2 * np.pi, 20, endpoint=False)[None]
    shape = 0.35 + 0.65 * faces.trait("lens_shape")  # exponents of a superellipse: of 1 is round
    wide, high = 0.225 + 0 * shape, 0.15 + 0.075 * faces.trait("lens_shape")
    flat = [np.sign(part) * np.abs(part) ** shape for part in (np.cos(turn), np.sin(turn))]
    rim_x, rim_y = x + 0.02 + wide * flat[0], y + 0.02 + high * flat[1]
    front = depth(np.zeros(1)) + 0.12 - 0.35 * rim_x**2
    end = np.stack([sign * (half_width(faces, 0 * y) + 0.02), y, 0 * y], -1)
    hinge = np.stack([sign * (x + 0.245), y, 0.96 - 0.35 * (x + 0.245) ** 2], -1)
    bridge = np.stack([sign * (x - 0.2), y, 0.96 + 0 * x], -1)
    return {
        "rim": np.stack([sign * rim_x, rim_y, np.broadcast_to(front, rim_x.shape)], -1),
        "temple": np.concatenate([hinge, end], 1),
        "rest": bridge,
    }


def beard(faces: Faces) -> Curves:
    """Returns the outlines of a full beard, a goatee and a moustache; the mouth lies on top of them."""
    lip, corner = _mouth_height(faces), 0.27 + 0 * faces.trait("smile")
    low = np.linspace(-80, 80, 17)[None]
    outer = around(faces, low, 0.14 + 0.92 * np.cos(np.radians(low * 1.1)) ** 0.7 + 0 * lip, 0.035)
    share = np.array([[0.95, 0.93, 0.85, 0.66, 0.46]])
    heights = np.array([[0.1, 0.3, 0.44, 0.5, 0.5]]) + (lip - 0.6) * np.array([[0, 0.2, 0.5, 1, 1]])
    right = on_face(faces, share * half_width(faces, heights), heights, 0.02)
    under = on_face(faces, np.zeros_like(lip), lip - 0.1, 0.06)
    left = right * np.array([-1, 1, 1])
    turn = np.linspace(0, 2 * np.pi, 14, endpoint=False)[None]
    goatee = on_face(faces, 0.9 * corner * np.cos(turn), lip + 0.17 + 0.3 * np.sin(turn), 0.04)
    tache_y = lip - 0.075 + 0.09 * ALONG**2
    top, bottom = (on_face(faces, corner * 1.08 * ALONG, tache_y + part, 0.06) for part in (-0.045, 0.045))
    return {
        "full": np.concatenate([outer, right, under, left[:, ::-1]], 1),
        "goatee": goatee,
        "moustache": np.concatenate([top, bottom[:, ::-1]], 1),
    }


def wrinkles(faces: Faces, sign: int) -> Curves:
    """Returns the lines of age: crow's feet, from the nose to the mouth, from the mouth down, and between the brows."""
    x, y = _eye_centre(faces)
    outer, start = x + 0.2, np.array([[0.0, 0.5, 1.0]])
    feet = {
        f"foot{number}_": on_face(faces, sign * (outer + 0.12 * start), y + 0.02 + slope * (0.3 + start))
        for number, slope in enumerate((-0.07, 0.0, 0.07))
    }
    down = np.linspace(0, 1, 6)[None]
    end, lip = _nose_end(faces), _mouth_height(faces)
    fold_x = 0.17 + (0.19 + 0.05 * faces.trait("smile")) * np.sin(down * np.pi / 2) + 0 * end
    fold = on_face(faces, sign * fold_x, end - 0.04 + (lip + 0.05 - end) * down)
    marionette = on_face(faces, sign * (0.3 + 0.03 * down), lip + 0.05 + 0.2 * down)
    between = on_face(faces, sign * (0.055 + 0 * down), y - 0.24 + 0.13 * down)
    jowl = on_face(faces, sign * (0.5 - 0.12 * down), 0.62 + 0.2 * down + 0 * lip)
    return {**feet, "fold": fold, "marionette": marionette, "between": between, "jowl": jowl}


def head(faces: Faces, larger: Column | float, lowest: float = 1.0) -> Float[np.ndarray, "faces points 3"]:
    """Returns points around the head, ring after ring from the top to height `lowest`."""
    y = -np.cos(np.linspace(0.03, 1, RINGS) * np.arccos(-lowest))
    degrees = np.linspace(0, 360, AROUND, endpoint=False)
    rings, turns = (part.reshape(1, -1) for part in np.meshgrid(y, degrees, indexing="ij"))
    return around(faces, turns + np.zeros((len(faces), 1)), rings, larger + np.zeros((len(faces), turns.size)))


def scalp(faces: Faces) -> Float[np.ndarray, "faces points 3"]:
    """Returns points around the hair that is in front of what is behind the head; short hair ends at the neck."""
    volume = np.maximum(faces.trait("volume"), 0)
    points = head(faces, volume, 0.3)
    points[..., 1] -= 0.25 * volume * (points[..., 1] < 0)
    return points


def hair(faces: Faces) -> Curves:
    """Returns the ends of long hair, the opening of the hair for the face, and strands."""
    volume, length = np.maximum(faces.trait("volume"), 0), faces.trait("length")
    long = length > 0.5
    degrees = np.linspace(0, 360, AROUND, endpoint=False)[None]
    heights = np.array([0.0, 0.5, 1.0])
    ends = []
    for share in heights:
        y = np.where(long, -0.1 + (length + 0.1) * share, 0.2)
        radius = half_width(faces, -0.1 + 0 * y) * (1 + volume + np.where(long, 0.06 - 0.1 * share, 0))
        ring = np.stack(
            [radius * np.sin(np.radians(degrees)), y + 0 * degrees, 0.8 * np.cos(np.radians(degrees)) + 0 * y], -1
        )
        ring[..., 2] = np.minimum(ring[..., 2], 0.35)
        ends.append(ring)
    most = np.where(long, 60.0, 86.0)
    t = np.linspace(-1, 1, 17)[None]
    line = -0.62 - 0.06 * faces.trait("forehead") + 0.4 * faces.trait("fringe") * (1 - 0.55 * t**2)
    line = line + 0.16 * faces.trait("parting") * t * (1 - t**2) + np.where(long, 0.35, 0.5) * t**6 + 0.18 * t**2
    thin = np.clip(faces.trait("recession") + 0.5 * ageing(faces), 0, 1)
    line = line - 0.16 * thin * np.exp(-(((np.abs(t) - 0.5) / 0.2) ** 2))
    line = np.clip(line, -0.93, 0.3)
    front = around(faces, most * t, line, 0.02 + 0 * line)
    y = np.array([[0.25, 0.6]])
    right = around(faces, np.where(long, 58.0, 92.0) + 0 * y, y + 0 * volume, 0.0)
    low = np.stack([0.5 - 0.02 * y + 0 * volume, np.array([[0.9, 2.2]]) + 0 * volume, 0.3 + 0 * y + 0 * volume], -1)
    down = np.concatenate([right, low], 1)
    strands = {}
    for number, turn in enumerate(np.linspace(-150, 150, STRANDS)):
        y = np.where(long, np.linspace(-0.97, 0.7, 6), np.linspace(-0.97, -0.05, 6))
        bent = turn + 12 * np.sin(3 * y + number) * faces.trait("curl")
        strands[f"strand{number}"] = around(faces, bent, y, volume + 0 * y)
    opening = np.concatenate([front, down, (down * np.array([-1, 1, 1]))[:, ::-1]], 1)
    return {"ends": np.concatenate(ends, 1), "opening_of_hair": opening, **strands}


def jaw(faces: Faces) -> Float[np.ndarray, "faces 17 3"]:
    """Returns the 17 landmarks from the picture's left ear along the chin to the right ear, fixed to the head."""
    t = np.linspace(-1, 1, 17)[None]
    degrees = 84 * np.sign(t) * np.abs(t) ** 0.9
    y = 0.05 + 0.95 * np.cos(t * np.pi / 2) ** 0.62
    return around(faces, degrees + np.zeros((len(faces), 1)), y, 0.0)


def ageing(faces: Faces) -> Column:
    """Returns how far age has changed the skin, from 0 at 25 years to 1 at 80."""
    return np.clip((faces.age - 25) / 55, 0, 1)


def _eye_centre(faces: Faces) -> tuple[Column, Column]:
    x = 0.325 + 0.042 * faces.trait("eye_spacing") + 0.012 * faces.trait("head_width")
    return x, -0.03 - 0.035 * faces.trait("eye_level")


def _nose_end(faces: Faces) -> Column:
    return 0.36 + 0.06 * faces.trait("nose_length")


def _mouth_height(faces: Faces) -> Column:
    return 0.61 - 0.04 * faces.trait("mouth_level") + 0.02 * faces.trait("nose_length")


def _bump(y: np.ndarray, centre: float, width: float) -> np.ndarray:
    return np.exp(-(((y - centre) / width) ** 2))
