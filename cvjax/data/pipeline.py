"""`data.transforms`, a list of `dict(op=..., ...)`, made into one function of an image."""

import dataclasses
import inspect
import types
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from cvjax.data import transforms
from cvjax.errors import UserError, suggest
from cvjax.signature import cast, written

OPS: Mapping[str, Callable] = types.MappingProxyType({name: getattr(transforms, name) for name in transforms.__all__})


@dataclasses.dataclass(frozen=True)
class Op:
    """A transform with its arguments. A random one takes a generator first."""

    name: str
    arguments: dict[str, Any]
    random: bool

    def __str__(self) -> str:
        """Writes it as a call."""
        return f"{self.name}({', '.join(f'{key}={value!r}' for key, value in self.arguments.items())})"


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """Transforms in their order."""

    ops: tuple[Op, ...] = ()

    @property
    def random(self) -> bool:
        """Whether any of them is random."""
        return any(op.random for op in self.ops)

    def split(self) -> tuple["Pipeline", "Pipeline"]:
        """Parts what comes before the first random transform, and can be done once, from the rest."""
        first = next((place for place, op in enumerate(self.ops) if op.random), len(self.ops))
        return Pipeline(self.ops[:first]), Pipeline(self.ops[first:])

    def __call__(self, image: np.ndarray, generator: np.random.Generator | None) -> np.ndarray:
        """Applies them to an image, float32 [height, width, channels]."""
        for op in self.ops:
            leading = (generator,) if op.random else ()
            image = OPS[op.name](*leading, image, **op.arguments)
        return image

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
        for place, op in enumerate(self.ops):
            try:
                image = Pipeline((op,))(image, generator)
            except Exception as error:  # whatever a wrong type or value comes to
                size = "x".join(map(str, image.shape))
                raise UserError(f"{setting}[{place}]: {op} fails on {example} ({size}): {error}") from error
        return image.shape


def build(entries: Sequence[Any], setting: str = "data.transforms") -> Pipeline:
    """Makes the function that a list of transforms describes.

    Args:
      entries: `dict(op=NAME, ...)` each; the other keys are the arguments of the function of that name.
      setting: the setting to name in a message.

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
        takes = {parameter: spec for parameter, spec in parameters.items() if parameter not in ("generator", "image")}
        for argument, value in list(arguments.items()):
            if argument not in takes:
                raise UserError(f"{where}: {name} has no argument {argument!r}. {suggest(argument, takes)}")
            expected = takes[argument].annotation
            try:
                arguments[argument] = cast(value, expected)
            except TypeError:
                raise UserError(f"{where}: {argument}={value!r} of {name} is not {written(expected)}") from None
        for parameter, spec in takes.items():
            if spec.default is inspect.Parameter.empty and parameter not in arguments:
                raise UserError(f"{where}: {name} needs the argument {parameter!r}")
        ops.append(Op(name, arguments, random="generator" in parameters))
    return Pipeline(tuple(ops))
