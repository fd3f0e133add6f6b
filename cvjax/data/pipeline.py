"""`data.transforms`, a list of `dict(op=..., ...)`, made into one function of an image."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cvjax.data import transforms
from cvjax.data.transforms.scene import Scene
from cvjax.errors import UserError, suggest
from cvjax.signature import arguments_of, match

SUPPLIED = ("generator", "image", "another")  # arguments that are not the user's
OPS: Mapping[str, Callable] = types.MappingProxyType({name: getattr(transforms, name) for name in transforms.__all__})


@dataclasses.dataclass(frozen=True)
class Op:
    """A transform with its arguments.

    Attributes:
      name: of the function.
      arguments: of it.
      random: whether it takes a generator first.
      joining: whether it takes what gives it further examples, after the image.
    """

    name: str
    arguments: dict[str, Any]
    random: bool
    joining: bool = False

    def __str__(self) -> str:
        """Writes it as a call."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Transforms in their order.

    Attributes:
      ops: the transforms.
      max_boxes: rows that objects come to in the end; None: they are not looked at.
      growth: how many times the boxes of an example these transforms, and others around them, may make of it.
      maps: features that move with the image.
    """

    ops: tuple[Op, ...] = ()
    max_boxes: int | None = None
    growth: int = 1
    maps: tuple[str, ...] = ()

    @property
    def random(self) -> bool:
        """Whether any of them is random."""
        return any(op.random for op in self.ops)

    def split(self) -> tuple["Pipeline", "Pipeline"]:
        """Parts what comes before the first random transform, and can be done once, from the rest."""
        first = next((place for place, op in enumerate(self.ops) if op.random), len(self.ops))
        return dataclasses.replace(self, ops=self.ops[:first]), dataclasses.replace(self, ops=self.ops[first:])

    def check_room(self, count: int, example: str) -> None:
        """Refuses an example with more boxes than there are rows, whatever the transforms make of it.

        Args:
          count: of its boxes.
          example: its name, for a message.

        Raises:
          UserError: how many there are, and what would be right.
        """
        most = count * self.growth
        if self.max_boxes is not None and most > self.max_boxes:
            grown = f", of which transforms may make {most}" if most > count else ""
            raise UserError(
                f"{example} has {count} boxes{grown}; data.max_boxes={self.max_boxes} has to be {most} or more"
            )

    def __call__(
        self,
        image: np.ndarray | Scene,
        generator: np.random.Generator | None,
        another: Callable[[], Scene] | None = None,
    ) -> np.ndarray | Scene:
        """Applies them to an image, float32 [height, width, channels], or to a scene.

        Args:
          image: the image.
          generator: random numbers, for the random ones.
          another: gives further scenes, for those that join several.
        """
        for place, op in enumerate(self.ops):
            image = _apply(op, image, generator, lambda place=place: self._upto(place)(another(), generator, another))
        return image

    def _upto(self, place: int) -> "Pipeline":
        return dataclasses.replace(self, ops=self.ops[:place])

    def dry_run(self, shape: tuple[int, int, int], setting: str, example: str) -> tuple[int, ...]:
        """Runs on a black image and returns the shape that comes out.

        Args:
          shape: [height, width, channels] of the image.
          setting: the setting to name in a message.
          example: what has this shape, to name in a message.

        Raises:
          UserError: a transform refuses its arguments, or the image.
        """
        image, generator = np.zeros(shape, np.float32), np.random.default_rng(0)
        if self.max_boxes is not None or self.maps:
            image = Scene(image, maps={name: np.zeros(shape[:2], np.int32) for name in self.maps})
        if self.max_boxes is not None:
            image = dataclasses.replace(
                image, boxes=np.zeros((1, 4), np.float32), rows={"area": np.zeros(1, np.float32)}
            )
        for place, op in enumerate(self.ops):
            try:
                image = _apply(op, image, generator, lambda image=image: image)
            except Exception as error:  # whatever a wrong type or value comes to
                size = "x".join(map(str, image.shape))
                raise UserError(f"{setting}[{place}]: {op} fails on {example} ({size}): {error}") from error
        return image.shape


def _apply(op: Op, image: np.ndarray | Scene, generator: np.random.Generator | None, another: Callable) -> Any:
    if isinstance(image, Scene) and op.name in transforms.COLOUR:
        return dataclasses.replace(image, image=_apply(op, image.image, generator, another))
    leading, following = (generator,) if op.random else (), (another,) if op.joining else ()
    return OPS[op.name](*leading, image, *following, **op.arguments)


def build(
    entries: Sequence[Any],
    setting: str = "data.transforms",
    max_boxes: int | None = None,
    maps: Sequence[str] = (),
) -> Pipeline:
    """Makes the function that a list of transforms describes.

    Args:
      entries: `dict(op=NAME, ...)` each; the other keys are the arguments of the function of that name.
      setting: the setting to name in a message.
      max_boxes: as `data.max_boxes`.
      maps: as `data.keep`.

    Raises:
      UserError: an unknown transform, or an argument that it does not take or lacks.
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
        parameters = inspect.signature(OPS[name]).parameters
        arguments = match(arguments, arguments_of(OPS[name], without=SUPPLIED), where, call=name)
        ops.append(Op(name, arguments, random="generator" in parameters, joining="another" in parameters))
    return Pipeline(tuple(ops), max_boxes, 4 ** sum(op.joining for op in ops), tuple(maps))
