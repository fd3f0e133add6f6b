"""Batches as a pure function of seed and step, so that resumed runs, hosts and workers all agree."""

import dataclasses
import functools
import sys
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Any

import numpy as np
from jaxtyping import Float32, Int, Shaped

from cvjax.data import balanced, objects
from cvjax.data.annotations import NONE
from cvjax.data.pipeline import Pipeline
from cvjax.data.sources import Source
from cvjax.data.transforms.scene import Joints, Points, Scene
from cvjax.errors import UserError

Example = dict[str, np.ndarray]
ORDER, TRANSFORMS = 0, 1  # separate streams of random numbers


@functools.lru_cache(maxsize=4)
def permutation(count: int, seed: int, epoch: int) -> Int[np.ndarray, " count"]:
    """Returns the order in which an epoch visits `count` examples."""
    order = np.random.default_rng((seed, ORDER, epoch)).permutation(count)
    order.flags.writeable = False  # it is shared
    return order


def to_float(image: Shaped[np.ndarray, "*shape"]) -> Float32[np.ndarray, "*shape"]:
    """Maps unsigned integers of 8 or 16 bits to [0, 1] and leaves floats as they are."""
    return image if image.dtype.kind == "f" else image.astype(np.float32) / np.float32(np.iinfo(image.dtype).max)


def transformed(source: Source, index: int, pipeline: Pipeline, seed: int = 0, position: int = 0) -> Example:
    """Decodes an example and transforms its image and all that moves with it.

    Images of the source are uint8, or float32 if the leading transforms were already applied. `position` is the
    example's place in the endless stream of examples, the second part of the seed of the random transforms. Raises a
    UserError if the example cannot be decoded, a transform refuses it, or it has too many boxes.
    """
    example = source[index]
    generator = np.random.default_rng((seed, TRANSFORMS, position)) if pipeline.random else None

    def another() -> np.ndarray | Scene:
        other = int(generator.integers(len(source)))
        return _picture(source[other], pipeline, source.describe(other))

    picture = _picture(example, pipeline, source.describe(index))
    try:
        moved = pipeline(picture, generator, another)
    except UserError as error:
        raise UserError(f"{source.describe(index)}: {error}") from error
    if not isinstance(moved, Scene):
        return {**example, "image": moved}
    numbers = {name: value for name, value in example.items() if name not in pipeline.texts}
    return {**numbers, **_arrays(moved)}


def _arrays(scene: Scene) -> Example:
    """Returns the parts of a scene under their names in a batch."""
    arrays = {"image": scene.image, **scene.images, **scene.maps, **scene.regions, **scene.tokens}
    if scene.boxes is not None:
        arrays |= {"boxes": scene.boxes, **scene.rows}
    if scene.masks is not None:
        arrays["masks"] = scene.masks
    if scene.joints is not None:
        arrays |= {"keypoints": scene.joints.positions, "visibility": scene.joints.visibility}
    if scene.points is not None:
        points = scene.points
        arrays |= {"points": points.positions, "visible": points.visible, "points_mask": points.mask}
    return arrays


def _picture(example: Example, pipeline: Pipeline, described: str) -> np.ndarray | Scene:
    """Returns what the transforms take: the image alone, or a scene if anything moves with it."""
    image, annotations = to_float(example["image"]), pipeline.annotations
    if annotations == NONE and not pipeline.texts:
        return image
    for name in pipeline.rows:
        pipeline.check_room(len(example[name]), described, name)
    maps = {name: example[name] for name in annotations.map_names}
    images = {name: to_float(example[name]) for name in annotations.image_names}
    regions = {name: example[name] for name in annotations.regions}
    texts = {name: tuple(np.atleast_1d(example[name]).tolist()) for name in pipeline.texts}
    scene = Scene(image, maps=maps, images=images, regions=regions, texts=texts, voids=annotations.class_map_names)
    if annotations.points:
        marks = example["points"], example["visible"], example["points_mask"]
        scene = dataclasses.replace(scene, points=Points(*marks, annotations.points.exchange))
    if pipeline.max_boxes is None:
        return scene
    rows = {name: example[name] for name in objects.TYPES}
    scene = dataclasses.replace(scene, boxes=example["boxes"], rows=rows, masks=example.get("masks"))
    if annotations.keypoints:
        joints = Joints(example["keypoints"], example["visibility"], annotations.keypoints.pairs)
        scene = dataclasses.replace(scene, joints=joints)
    return scene


def stacked(
    examples: Sequence[Example], source: Source, indices: Sequence[int], rows: Mapping[str, int] = MappingProxyType({})
) -> Example:
    """Stacks examples with the same keys into arrays; boxes are padded to the number that `rows` has for the feature.

    Raises a UserError if two differ in shape, which names them by their source and indices.
    """
    for feature, count in rows.items():
        pad = objects.padded if feature == "boxes" else functools.partial(objects.padded_boxes, feature=feature)
        examples = [pad(example, count) for example in examples]
    for example, index in zip(examples, indices, strict=True):
        for key, value in example.items():
            expected = examples[0][key].shape
            if value.shape != expected:
                first, second = source.describe(indices[0]), source.describe(index)
                raise UserError(disagreement(key, first, expected, second, value.shape))
    return {key: np.stack([example[key] for example in examples]) for key in examples[0]}


def disagreement(feature: str, first: str, shape: tuple[int, ...], second: str, other: tuple[int, ...]) -> str:
    """Returns the message for two examples that differ in the shape of `feature`, with a transform that helps."""
    by, by_other = ("x".join(map(str, dimensions)) for dimensions in (shape, other))
    if feature == "image" and shape[:2] == other[:2]:
        mend = 'dict(op="grayscale")'
    else:
        mend = 'dict(op="resize", size=(64, 64)) or dict(op="random_crop", size=(64, 64))'
    return (
        f"a batch needs examples of one shape, but `{feature}` of {first} is {by} and that of {second} is {by_other}. "
        f"Add to data.transforms and data.eval_transforms: {mend}"
    )


@dataclasses.dataclass(frozen=True)
class Batches:
    """A random-access sequence of this process's part of each batch.

    Attributes:
      pipeline: transforms still to be applied to an example.
      batch, rows: size of a batch over all processes, and this process's part of it, [first, last).
      endless: reshuffle in every epoch and never stop; else one pass in order, with `valid`.
      per_class: examples per class in a batch; None: batches are not balanced.
      classes: indices of each class's examples, where `per_class` is set.
      in_memory: whether the examples are decoded already.
      arrays: all examples stacked and transformed, where they are in memory and no transform is random.
    """

    source: Source
    pipeline: Pipeline
    seed: int
    batch: int
    rows: tuple[int, int]
    endless: bool
    per_class: int | None = None
    classes: Sequence[Int[np.ndarray, " _"]] = ()
    in_memory: bool = False
    arrays: Example | None = None

    def __len__(self) -> int:
        """Returns the number of steps."""
        return sys.maxsize if self.endless else -(-len(self.source) // self.batch)

    def __getitem__(self, step: int) -> dict[str, Any]:
        """Returns this process's part of a batch."""
        positions = np.arange(*self.rows) + step * self.batch
        count = len(self.source)
        if self.per_class is not None:
            chosen = balanced.indices(self.classes, self.per_class, self.batch, self.seed, step)
            return self._gather(positions, chosen[slice(*self.rows)])
        if self.endless:
            first, last = int(positions[0]) // count, int(positions[-1]) // count
            orders = [permutation(count, self.seed, epoch) for epoch in range(first, last + 1)]
            order = np.concatenate(orders) if len(orders) > 1 else orders[0]
            return self._gather(positions, order[positions - first * count])
        batch = self._gather(positions, np.minimum(positions, count - 1))
        return {**batch, "valid": positions < count}

    def order(self) -> dict[str, Any]:
        """Returns what the order depends on."""
        order = {"examples": len(self.source), "batch": self.batch, "seed": self.seed}
        return order if self.per_class is None else {**order, "per_class": self.per_class}

    def _gather(self, positions: np.ndarray, indices: np.ndarray) -> Example:
        if self.arrays is not None:
            batch = {key: value[indices] for key, value in self.arrays.items()}
            return {
                **batch,
                **{name: to_float(batch[name]) for name in ("image", *self.pipeline.annotations.image_names)},
            }
        examples = [
            transformed(self.source, index, self.pipeline, self.seed, position)
            for index, position in zip(indices.tolist(), positions.tolist(), strict=True)
        ]
        return stacked(examples, self.source, indices.tolist(), self.pipeline.rows)
