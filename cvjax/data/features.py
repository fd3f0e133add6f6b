"""Features of a TFDS dataset: which of them are read, and how."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.data import objects
from cvjax.data.annotations import Annotations
from cvjax.data.class_maps import ClassMap, Table, dataset_table
from cvjax.data.keypoints import Keypoints
from cvjax.data.landmarks import Landmarks
from cvjax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class Columns:
    """The features that are read of each example, by kind.

    Attributes:
      numbers: the image and numbers of a fixed shape.
      boxes: whether objects are read, by `cvjax.data.objects.read`.
      maps: images of integers, read as int32 [height, width].
      texts: strings, or arrays of strings.
      images: pairs of a further image's name in a batch and its feature.
      masks: the feature of each object that holds its mask.
      keypoints: those of each object, and their number.
      class_maps: name in a batch, feature and table of the maps of classes.
    """

    numbers: tuple[str, ...] = ("image",)
    boxes: bool = False
    maps: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()
    images: tuple[tuple[str, str], ...] = ()
    points: Landmarks | None = None
    masks: str | None = None
    keypoints: tuple[Keypoints, int] | None = None
    class_maps: tuple[tuple[str, str, Table], ...] = ()
    image: str = "image"

    @property
    def classes(self) -> tuple[str, ...]:
        """Names of the classes of the first map of classes, or ()."""
        return self.class_maps[0][2].names if self.class_maps else ()

    def read(self, example: Mapping[str, Any], one_based: bool = False) -> dict[str, np.ndarray]:
        """Converts an example that TFDS decoded; `one_based` as for `cvjax.data.objects.read`.

        Raises a ValueError if a further image or a mask differs in size from the image, there are too many points, a
        joint has a visibility that there is not, or a map has a value of no class.
        """
        example = {**example, "image": example[self.image]}
        read = {key: _narrow(example[key]) for key in self.numbers}
        height, width = read["image"].shape[:2]
        if self.boxes:
            read |= objects.read(example["objects"], height, width, one_based)
        if self.masks:
            read["masks"] = objects.read_masks(example["objects"][self.masks], height, width)
        if self.keypoints:
            keypoints, count = self.keypoints
            read |= keypoints.read(example["objects"][keypoints.feature], count, height, width)
        read |= {key: example[key][..., 0].astype(np.int32) for key in self.maps}
        for name, feature in self.images:
            read[name] = np.asarray(example[feature])
        for name, feature, table in self.class_maps:
            try:
                read[name] = table.classes(example[feature][..., 0])
            except ValueError as error:
                raise ValueError(f"`{feature}`: {error}") from error
        for name, feature, *_ in (*self.images, *self.class_maps):
            if read[name].shape[:2] != (height, width):
                size = "x".join(map(str, read[name].shape[:2]))
                raise ValueError(f"`image` is {height}x{width} and `{feature}`, which should move with it, {size}")
        if self.points:
            read |= self.points.read(example[self.points.feature], height, width)
        return read | {key: read_text(example[key]) for key in self.texts}


def select(name: str, features: tfds.features.FeaturesDict, annotations: Annotations, boxes: bool = False) -> Columns:
    """Selects the features to read, with arguments as for `cvjax.data.catalogue.open_split`.

    Raises a UserError if the dataset lacks a feature that `annotations` asks for.
    """
    there = dict(features.items())
    found = bool(objects.annotated(features))
    if annotations.max_boxes is not None and not found:
        wanted = annotations.max_boxes
        raise UserError(f"data.max_boxes={wanted}: {name} has no objects with boxes and labels; leave it None")
    image = first_image(features)
    maps = [key for key, feature in there.items() if _is_image(key, feature, image) and feature.shape[-1] == 1]
    texts = [key for key, feature in there.items() if _is_text(feature)]
    for key in annotations.keep:
        if key not in (*maps, *texts):
            raise UserError(f"data.keep: {name} has no map or text {key!r}. {suggest(key, (*maps, *texts))}")
    known = objects.masks(features)
    if annotations.masks is not None and annotations.masks not in known:
        there_is = suggest(annotations.masks, known) if known else "None of their features is one"
        raise UserError(f"data.masks={annotations.masks!r}: the objects of {name} have no such mask. {there_is}")
    keypoints = annotations.keypoints
    points = annotations.points and annotations.points.resolved(name, there)
    apart = (points.feature,) if points else ()
    stacking = (key for key, feature in there.items() if key not in apart and _stacks(key, feature, image))
    numbers = tuple(sorted("image" if key == image else key for key in stacking))
    images = [key for key, feature in there.items() if isinstance(feature, tfds.features.Image)]
    for key, source in annotations.images.items():
        if source not in images:
            raise UserError(f"data.images.{key}={source!r}: {name} has no such image. {suggest(source, images)}")
        if key in numbers:
            raise UserError(f"data.images: {name} has a feature {key!r} already; choose another name, such as 'target'")
    return Columns(
        numbers=numbers,
        boxes=found if boxes else annotations.max_boxes is not None,
        maps=tuple(key for key in maps if key in annotations.keep),
        texts=tuple(key for key in texts if key in annotations.keep),
        images=tuple(annotations.images.items()),
        points=points,
        masks=annotations.masks,
        keypoints=keypoints and (keypoints, keypoints.resolved(name, objects.annotated(features))),
        class_maps=tuple(_class_map(asked, name, there, maps) for asked in annotations.class_maps),
        image=image or "image",
    )


def first_image(features: tfds.features.FeaturesDict) -> str | None:
    """Returns the feature that is a dataset's image; None if there is none.

    Of stereo images that is the left one, and of pairs for super-resolution the one of high resolution.
    """
    return next((name for name in ("image", "image_left", "hr") if name in features), None)


def read_text(value: Any) -> np.ndarray:
    """Decodes TFDS's bytes to a string, or to an array of strings."""
    if isinstance(value, Mapping):  # captions with more beside them, as COCO's
        value = value["text"]
    return np.array(value.decode()) if isinstance(value, bytes) else np.array([one.decode() for one in value], str)


def _class_map(asked: ClassMap, name: str, there: Mapping[str, Any], maps: Sequence[str]) -> tuple[str, str, Table]:
    """Finds the map and the table that an entry of `data.class_maps` asks for."""
    where, source = f"data.class_maps.{asked.feature}", asked.source
    if source not in maps:
        known = suggest(source, maps) if maps else "None of its features is one"
        raise UserError(f"{where}: {name} has no map {source!r}. {known}")
    if asked.table and asked.table.coloured:
        raise UserError(f"{where}: the maps of {name} hold numbers; give `classes` in place of `colours`")
    declared = there[source].names if isinstance(there[source], tfds.features.LabeledImage) else ()
    table = asked.table or dataset_table(name, source, declared or ())
    if table is None:
        raise UserError(f"{where}: {name} does not say which values of {source!r} are which class; give `classes`")
    return asked.feature, source, table


def _is_text(feature: Any) -> bool:
    """Whether a feature is a text or a sequence of texts."""
    if isinstance(feature, tfds.features.Sequence):
        inner = feature.feature
        feature = dict(inner.items()).get("text") if isinstance(inner, tfds.features.FeaturesDict) else inner
    return isinstance(feature, tfds.features.Text)


def _is_image(name: str, feature: Any, first: str | None) -> bool:
    """Whether a feature is an image other than the first; these are read only if asked for."""
    return isinstance(feature, tfds.features.Image) and name != first


def _stacks(name: str, feature: Any, first: str | None) -> bool:
    """Whether a feature stacks into arrays: the image, and numbers of a fixed shape."""
    info = feature.get_tensor_info()
    return name == first or (
        isinstance(info, tfds.features.TensorInfo)
        and None not in info.shape
        and np.dtype(info.np_dtype).kind in "biuf"
        and not _is_image(name, feature, first)
    )


def _narrow(value: Any) -> np.ndarray:
    """Converts 64-bit numbers to 32 bits, as JAX would."""
    value = np.asarray(value)
    narrow = {np.int64: np.int32, np.uint64: np.uint32, np.float64: np.float32}.get(value.dtype.type)
    return value.astype(narrow) if narrow else value
