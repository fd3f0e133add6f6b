"""Builds one function of an image from `data.transforms`, a list of `dict(op=..., ...)`."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cvjax.data import transforms
from cvjax.data.annotations import NONE, RESERVED, Annotations
from cvjax.data.transforms.scene import Joints, Points, Scene
from cvjax.data.vocabulary import Vocabulary
from cvjax.errors import UserError, number_of, suggest
from cvjax.signature import arguments_of, match

SUPPLIED = ("generator", "image", "another", "vocabulary")  # arguments that the pipeline fills in
OPS: Mapping[str, Callable] = types.MappingProxyType({name: getattr(transforms, name) for name in transforms.__all__})


@dataclasses.dataclass(frozen=True)
class Op:
    """A transform with its arguments.

    Attributes:
      random: whether it takes a generator first.
      joining: whether it takes a function that returns further examples, after the image.
      images: the images that a transform of colours changes.
    """

    name: str
    arguments: dict[str, Any]
    random: bool
    joining: bool = False
    images: tuple[str, ...] = ("image",)

    @property
    def text(self) -> str | None:
        """Name of the text that it reads, or None."""
        return self.arguments.get("text", "caption") if self.name in transforms.TEXT else None

    def __str__(self) -> str:
        """Writes it as a call."""
        arguments = self.arguments if self.images == ("image",) else {**self.arguments, "images": self.images}
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in arguments.items())})"


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Transforms in order, and what moves with the image; they may multiply an example's boxes by `growth`."""

    ops: tuple[Op, ...] = ()
    annotations: Annotations = NONE
    growth: int = 1

    @property
    def max_boxes(self) -> int | None:
        """`data.max_boxes`."""
        return self.annotations.max_boxes

    @property
    def texts(self) -> tuple[str, ...]:
        """Names of the texts that these transforms read."""
        return tuple(dict.fromkeys(op.text for op in self.ops if op.text))

    @property
    def tokenised(self) -> tuple[str, ...]:
        """Names of the texts that these transforms replace by tokens."""
        return tuple(op.text for op in self.ops if op.name == "tokenise")

    @property
    def random(self) -> bool:
        """Whether any of them is random."""
        return any(op.random for op in self.ops)

    def split(self) -> tuple["Pipeline", "Pipeline"]:
        """Splits before the first random transform; the first part can be done once."""
        first = next((place for place, op in enumerate(self.ops) if op.random), len(self.ops))
        return dataclasses.replace(self, ops=self.ops[:first]), dataclasses.replace(self, ops=self.ops[first:])

    @property
    def rows(self) -> dict[str, int]:
        """Number of rows to which boxes are padded, by feature."""
        own = {} if self.max_boxes is None else {"boxes": self.max_boxes}
        return {**own, **self.annotations.regions}

    def check_room(self, count: int, example: str, feature: str = "boxes") -> None:
        """Raises a UserError if an example of `count` boxes may have more than there are rows after the transforms."""
        most = count * self.growth
        if feature in self.rows and most > self.rows[feature]:
            grown = f", which transforms may turn into {most}" if most > count else ""
            held = number_of(count, "box") if feature == "boxes" else f"{count} {feature}"
            setting = "data.max_boxes" if feature == "boxes" else f"data.derive.{feature}.max_boxes"
            raise UserError(f"{example} has {held}{grown}; {setting}={self.rows[feature]} has to be {most} or more")

    def __call__(
        self,
        image: np.ndarray | Scene,
        generator: np.random.Generator | None,
        another: Callable[[], Scene] | None = None,
    ) -> np.ndarray | Scene:
        """Applies them to an image or a scene; `another` returns further scenes, for transforms that join several."""
        for place, op in enumerate(self.ops):
            image = _apply(op, image, generator, lambda place=place: self._upto(place)(another(), generator, another))
        return image

    def _upto(self, place: int) -> "Pipeline":
        return dataclasses.replace(self, ops=self.ops[:place])

    def dry_run(
        self, shape: tuple[int, int, int], setting: str, example: str, channels: Mapping[str, int] | None = None
    ) -> tuple[int, ...]:
        """Runs on a black image and returns the shape that comes out.

        `channels` are those of further images, if they differ from the first's. Raises a UserError, which names
        `setting` and `example`, if a transform refuses its arguments, or the image.
        """
        image, generator = self._black(shape, channels or {}), np.random.default_rng(0)
        for place, op in enumerate(self.ops):
            try:
                image = _apply(op, image, generator, lambda image=image: image)
            except Exception as error:  # a wrong type or value raises anything
                size = "x".join(map(str, image.shape))
                raise UserError(f"{setting}[{place}]: {op} fails on {example} ({size}): {error}") from error
        return image.shape

    def _black(self, shape: tuple[int, int, int], channels: Mapping[str, int]) -> np.ndarray | Scene:
        """Returns a black image with empty annotations of every kind."""
        image, (height, width, own) = np.zeros(shape, np.float32), shape
        if self.annotations == NONE and not self.texts:
            return image
        scene = Scene(
            image,
            texts={name: ("",) for name in self.texts},
            maps={name: np.zeros((height, width), np.int32) for name in self.annotations.map_names},
            voids=self.annotations.class_map_names,
            images={
                name: np.zeros((height, width, channels.get(name, own)), np.float32)
                for name in self.annotations.image_names
            },
            regions={name: np.zeros((1, 4), np.float32) for name in self.annotations.regions},
        )
        if self.annotations.points:
            exchange = self.annotations.points.exchange
            count = 1 + max((point for pair in exchange for point in pair), default=0)
            none = np.zeros(count, bool)
            scene = dataclasses.replace(scene, points=Points(np.zeros((count, 2), np.float32), none, none, exchange))
        if self.max_boxes is None:
            return scene
        masks = np.zeros((1, height, width), bool) if self.annotations.masks else None
        rows = {"area": np.zeros(1, np.float32)}
        scene = dataclasses.replace(scene, boxes=np.zeros((1, 4), np.float32), rows=rows, masks=masks)
        if self.annotations.keypoints:
            exchange, count = self.annotations.keypoints.pairs, self.annotations.keypoints.least
            joints = Joints(np.zeros((1, count, 2), np.float32), np.zeros((1, count), np.int32), exchange)
            scene = dataclasses.replace(scene, joints=joints)
        return scene


def _apply(op: Op, image: np.ndarray | Scene, generator: np.random.Generator | None, another: Callable) -> Any:
    if isinstance(image, Scene) and op.name in transforms.COLOUR:
        return _recoloured(op, image, generator)
    leading, following = (generator,) if op.random else (), (another,) if op.joining else ()
    return OPS[op.name](*leading, image, *following, **op.arguments)


def _recoloured(op: Op, scene: Scene, generator: np.random.Generator | None) -> Scene:
    """Changes the images that a transform of colours names, each with the same random numbers."""
    first = generator.bit_generator.state if op.random else None
    changed = {}
    for name, pixels in {"image": scene.image, **scene.images}.items():
        if name in op.images:
            if op.random:
                generator.bit_generator.state = first
            pixels = OPS[op.name](*((generator,) if op.random else ()), pixels, **op.arguments)
        changed[name] = pixels
    return dataclasses.replace(scene, image=changed.pop("image"), images=changed)


def build(
    entries: Sequence[Any],
    setting: str = "data.transforms",
    annotations: Annotations = NONE,
    vocabulary: Vocabulary | None = None,
) -> Pipeline:
    """Builds a pipeline; raises a UserError for an unknown transform, or a wrong or missing argument.

    Entries are dicts of the function's name, `op`, and its arguments. A transform of colours also takes `images`, the
    names of the images that it changes, `("image",)` by default. Without a vocabulary, for `tokenise`, all transforms
    of texts are left out.
    """
    if isinstance(entries, str | Mapping) or not isinstance(entries, Sequence):
        raise UserError(f'{setting} must be a list of dict(op="resize", size=(64, 64)), not {entries!r}')
    ops = []
    for place, entry in enumerate(entries):
        where = f"{setting}[{place}]"
        if not hasattr(entry, "keys") or "op" not in entry:
            raise UserError(f'{where} must be a dict such as dict(op="resize", size=(64, 64)), not {entry!r}')
        arguments = dict(entry)
        name = arguments.pop("op")
        if name not in OPS:
            raise UserError(f"{where}: there is no transform {name!r}. {suggest(name, OPS)}")
        images = arguments.pop("images", ("image",)) if name in transforms.COLOUR else ("image",)
        _check_images(images, ("image", *annotations.image_names), f"{where}: images={images!r}")
        arguments = match(arguments, arguments_of(OPS[name], without=SUPPLIED), where, call=name)
        parameters = inspect.signature(OPS[name]).parameters
        if name in transforms.TEXT and vocabulary is None:
            continue
        if "vocabulary" in parameters:
            arguments["vocabulary"] = vocabulary
        random, joining = ("generator" in parameters), ("another" in parameters)
        ops.append(Op(name, arguments, random, joining, tuple(images)))
        _check_text(ops, annotations, where)
    texts = [op.text for op in ops]
    maps = dataclasses.replace(annotations, keep=tuple(name for name in annotations.keep if name not in texts))
    return Pipeline(tuple(ops), maps, 4 ** sum(op.joining for op in ops))


def _check_text(ops: Sequence[Op], annotations: Annotations, where: str) -> None:
    """Refuses the last transform if it cannot read its text, or joins images that have texts."""
    *before, last = ops
    if last.text and last.text not in annotations.keep:
        raise UserError(f"{where}: {last.name} reads the text {last.text!r}, which data.keep has to name")
    if any(op.text for op in ops) and any(op.joining for op in ops):
        joining = next(op.name for op in ops if op.joining)
        raise UserError(f"{where}: {joining} cannot join the texts of several images")
    if last.name == "tokenise":
        name = last.arguments.get("name", "tokens")
        others = [op.arguments.get("name", "tokens") for op in before if op.name == "tokenise"]
        if name in (*RESERVED, *annotations.map_names, *annotations.image_names, *annotations.regions, *others):
            raise UserError(f"{where}: the name {name!r} is taken in a batch; choose another for these tokens")


def _check_images(images: Any, known: Sequence[str], where: str) -> None:
    if isinstance(images, str) or not isinstance(images, Sequence) or not images:
        raise UserError(f'{where} must be a list of names, such as ("image", "target")')
    for name in images:
        if name not in known:
            raise UserError(f"{where}: data.images has no {name!r}. {suggest(str(name), known)}")
