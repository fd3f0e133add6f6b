"""An image and the annotations that transforms move with it: further images, boxes, masks, maps, points and joints."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Literal

import numpy as np
from jaxtyping import Bool, Float32, Float64, Int32, Integer, Shaped

from cvjax.data import people
from cvjax.data.class_maps import VOID
from cvjax.data.keypoints import within
from cvjax.errors import UserError

Keep = Literal["centre"] | float
INSTANCES = "instances"  # the map whose numbers are rows of the boxes, counted from 1


@dataclasses.dataclass(frozen=True)
class Points:
    """Points on an image, such as the landmarks of a face.

    Attributes:
      positions: x, y in pixels; (0.5, 0.5) is the middle of the first pixel.
      mask: False where a point is padding.
      exchange: pairs of points that a mirror exchanges, such as the left and the right eye.
    """

    positions: Float32[np.ndarray, "points 2"]
    visible: Bool[np.ndarray, " points"]
    mask: Bool[np.ndarray, " points"]
    exchange: tuple[tuple[int, int], ...] = ()

    def moved(
        self, linear: Float64[np.ndarray, "2 2"], shift: Sequence[float | int], height: int, width: int
    ) -> "Points":
        """Moves the points as `Scene.moved` to an image of this size; those outside are no longer visible."""
        positions = (self.positions @ linear.T + shift).astype(np.float32)
        visible = self.visible & ((positions >= 0) & (positions <= (width, height))).all(axis=1)
        order = _order(len(positions), self.exchange, linear)
        positions[~self.mask] = 0
        return dataclasses.replace(self, positions=positions[order], visible=visible[order], mask=self.mask[order])


@dataclasses.dataclass(frozen=True)
class Joints:
    """Keypoints of the objects on an image, such as the joints of people.

    Attributes:
      positions: x, y in pixels as for `Points`; 0 where the visibility is.
      visibility: 0 not labelled, or outside of the image; 1 labelled but hidden; 2 visible.
      exchange: pairs of joints that a mirror exchanges, such as the left and the right knee.
    """

    positions: Float32[np.ndarray, "objects joints 2"]
    visibility: Int32[np.ndarray, "objects joints"]
    exchange: tuple[tuple[int, int], ...] = ()

    def moved(
        self, linear: Float64[np.ndarray, "2 2"], shift: Sequence[float | int], height: int, width: int
    ) -> "Joints":
        """Moves the joints as `Scene.moved` to an image of this size; those outside are no longer labelled."""
        positions = (self.positions @ linear.T + shift).astype(np.float32)
        order = _order(positions.shape[1], self.exchange, linear)
        positions, visibility = within(positions[:, order], self.visibility[:, order], height, width)
        return dataclasses.replace(self, positions=positions, visibility=visibility)

    def select(self, chosen: Shaped[np.ndarray, " objects"]) -> "Joints":
        """Keeps the joints of some objects."""
        return dataclasses.replace(self, positions=self.positions[chosen], visibility=self.visibility[chosen])


@dataclasses.dataclass(frozen=True)
class Scene:
    """An image and its annotations. Transforms that move pixels take and return one in place of an image.

    Attributes:
      boxes: None if they are not read.
      rows: further values of each box, such as its label; `area`, in square pixels, changes with the scale.
      maps: integers, 0 for background. Numbers of the map `instances` are 1 + the row of the box.
      images: further images of the same height and width. Transforms of colours change only those that they name.
      points: landmarks.
      masks: the pixels of each box's object; they may overlap.
      joints: the keypoints of each box's object.
      regions: further boxes by name, such as proposals, moved, clipped and dropped like `boxes`.
      texts: captions, one or several for each name.
      tokens: output of `tokenise`.
      voids: the maps that are `VOID` outside of the image; the others are 0 there.
    """

    image: Float32[np.ndarray, "height width channels"]
    boxes: Float32[np.ndarray, "objects 4"] | None = None
    rows: Mapping[str, Shaped[np.ndarray, " objects"]] = dataclasses.field(default_factory=dict)
    maps: Mapping[str, Integer[np.ndarray, "height width"]] = dataclasses.field(default_factory=dict)
    images: Mapping[str, Float32[np.ndarray, "height width _"]] = dataclasses.field(default_factory=dict)
    points: Points | None = None
    masks: Bool[np.ndarray, "objects height width"] | None = None
    joints: Joints | None = None
    regions: Mapping[str, Float32[np.ndarray, "_ 4"]] = dataclasses.field(default_factory=dict)
    texts: Mapping[str, tuple[str, ...]] = dataclasses.field(default_factory=dict)
    tokens: Mapping[str, Shaped[np.ndarray, " _"]] = dataclasses.field(default_factory=dict)
    voids: tuple[str, ...] = ()

    @property
    def shape(self) -> tuple[int, int, int]:
        """Shape of the image."""
        return self.image.shape

    @property
    def boxed(self) -> bool:
        """Whether boxes of any kind are read."""
        return self.boxes is not None or bool(self.regions)

    def fill(self, name: str) -> int:
        """Returns the value of a map outside of the image."""
        return VOID if name in self.voids else 0

    def moved(
        self,
        pixels: Callable[[np.ndarray], np.ndarray],
        numbers: Callable[[np.ndarray, int], np.ndarray],
        linear: Sequence[Sequence[float | int]] = ((1, 0), (0, 1)),
        shift: Sequence[float | int] = (0, 0),
    ) -> "Scene":
        """Moves an image by `pixels`, a map or mask by `numbers` and a point (x, y) to linear @ (x, y) + shift.

        `numbers` takes the value outside of the image, too.
        """
        moved = {
            "image": pixels(self.image),
            "images": {name: pixels(value) for name, value in self.images.items()},
            "maps": {name: numbers(value, self.fill(name)) for name, value in self.maps.items()},
        }
        # Double precision, so that boxes that end at the border still do when they are scaled.
        linear = np.asarray(linear, np.float64)
        if self.boxes is not None:
            moved["boxes"] = _moved(self.boxes, linear, shift)
            moved["rows"] = {**self.rows, "area": self.rows["area"] * np.float32(abs(np.linalg.det(linear)))}
        moved["regions"] = {name: _moved(boxes, linear, shift) for name, boxes in self.regions.items()}
        if self.masks is not None:
            moved["masks"] = np.zeros((len(self.masks), *moved["image"].shape[:2]), bool)
            for row, mask in enumerate(self.masks):
                moved["masks"][row] = numbers(mask, 0)
        if self.joints is not None:
            moved["joints"] = self.joints.moved(linear, shift, *moved["image"].shape[:2])
        if self.points is not None:
            moved["points"] = self.points.moved(linear, shift, *moved["image"].shape[:2])
        return dataclasses.replace(self, **moved)

    def clipped(self, keep: Keep) -> "Scene":
        """Clips boxes to the image and drops those outside, by `keep` as for `crop`; `area` shrinks in proportion.

        Boxes without area are kept by their centre. Raises a UserError if `keep` is neither "centre" nor a share.
        """
        if keep != "centre" and not 0 <= keep <= 1:
            raise UserError(f'keep={keep!r} must be "centre", or a share of the area in [0, 1]')
        regions = {}
        for name, region in self.regions.items():
            clipped, _, kept = _clipped(region, *self.shape[:2], keep)
            regions[name] = clipped[kept]
        scene = dataclasses.replace(self, regions=regions)
        if self.boxes is None:
            return scene
        boxes, share, kept = _clipped(self.boxes, *self.shape[:2], keep)
        rows = {**self.rows, "area": self.rows["area"] * share}
        return dataclasses.replace(scene, boxes=boxes, rows=rows).select(kept)

    def select(self, chosen: Shaped[np.ndarray, " objects"]) -> "Scene":
        """Keeps the boxes where `chosen` is True, and their masks, joints and instances."""
        if chosen.all():
            return self
        maps = dict(self.maps)
        if INSTANCES in maps:
            numbers = np.where(chosen, np.cumsum(chosen), 0)
            maps[INSTANCES] = np.concatenate([[0], numbers]).astype(maps[INSTANCES].dtype)[maps[INSTANCES]]
        rows = {name: value[chosen] for name, value in self.rows.items()}
        masks = None if self.masks is None else self.masks[chosen]
        joints = None if self.joints is None else self.joints.select(chosen)
        return dataclasses.replace(self, boxes=self.boxes[chosen], rows=rows, maps=maps, masks=masks, joints=joints)


def _order(count: int, exchange: Sequence[tuple[int, int]], linear: np.ndarray) -> np.ndarray:
    """Returns the order of points after a movement: a mirror exchanges some."""
    order = np.arange(count)
    if np.linalg.det(linear) < 0:
        for one, other in exchange:
            order[[one, other]] = other, one
    return order


def _moved(boxes: np.ndarray, linear: np.ndarray, shift: Sequence[float | int]) -> np.ndarray:
    corners = boxes.reshape(-1, 2, 2) @ linear.T + shift
    return np.sort(corners, axis=1).reshape(-1, 4).astype(np.float32)  # a mirror exchanges corners


def _clipped(boxes: np.ndarray, height: int, width: int, keep: Keep) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns clipped boxes, the share of each that remains, and whether it is kept."""
    clipped = np.clip(boxes, 0, np.float32([width, height, width, height]))
    before, after = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes, clipped))
    share = np.divide(after, before, out=np.ones_like(after), where=before > 0)
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    kept = inside = ((middle >= 0) & (middle < (width, height))).all(axis=1)
    if keep != "centre":
        kept = np.where(before > 0, (share > 0) & (share >= keep), inside)
    return clipped, share, kept


def collage(placed: Sequence[tuple[int, int, Scene]], height: int, width: int) -> Scene:
    """Lays scenes on one canvas at (top row, left column), later ones on top.

    All of them have boxes, and the same rows, maps and further images. Joints below a later scene are hidden.
    """
    first = placed[0][2]
    image = np.zeros((height, width, first.shape[2]), np.float32)
    images = {name: np.zeros((height, width, value.shape[2]), np.float32) for name, value in first.images.items()}
    maps = {name: np.full((height, width), first.fill(name), numbers.dtype) for name, numbers in first.maps.items()}
    masks = (
        None if first.masks is None else np.zeros((sum(len(scene.boxes) for *_, scene in placed), height, width), bool)
    )
    regions = {name: [] for name in first.regions}
    boxes, joints, count = [], [], 0
    for top, left, scene in placed:
        window = slice(top, top + scene.shape[0]), slice(left, left + scene.shape[1])
        image[window] = scene.image
        for name, value in scene.images.items():
            images[name][window] = value
        for name, numbers in scene.maps.items():
            maps[name][window] = numbers + count * (numbers > 0) if name == INSTANCES else numbers
        if masks is not None:
            masks[:, *window] = False  # of what lies below
            masks[count : count + len(scene.boxes), *window] = scene.masks
        for below in joints:
            inside = ((below.positions >= (left, top)) & (below.positions < (window[1].stop, window[0].stop))).all(-1)
            np.minimum(below.visibility, people.HIDDEN, out=below.visibility, where=inside)
        if scene.joints is not None:
            moved = scene.joints.moved(np.eye(2), (left, top), height, width)
            joints.append(moved)
        for name, region in scene.regions.items():
            regions[name].append(region + np.float32([left, top, left, top]))
        boxes.append(scene.boxes + np.float32([left, top, left, top]))
        count += len(scene.boxes)
    rows = {name: np.concatenate([scene.rows[name] for _, _, scene in placed]) for name in first.rows}
    regions = {name: np.concatenate(parts) for name, parts in regions.items()}
    boxes = np.concatenate(boxes)
    return Scene(
        *(image, boxes, rows, maps, images),
        masks=masks,
        joints=_joined(joints) if joints else None,
        regions=regions,
        voids=first.voids,
    )


def _joined(joints: Sequence[Joints]) -> Joints:
    positions = np.concatenate([each.positions for each in joints])
    return Joints(positions, np.concatenate([each.visibility for each in joints]), joints[0].exchange)
