"""Values held against type annotations, so that a wrong argument is named before anything is called with it."""

import contextlib
import dataclasses
import math
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Annotated, Any


@dataclasses.dataclass(frozen=True)
class Range:
    """The numbers that an annotated argument may be, from `low` to `high`, both included."""

    low: int | float = -math.inf
    high: int | float = math.inf

    def __str__(self) -> str:
        """Says it: "at least 1", "from 0 to 1"."""
        return f"at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:g}"


Count = Annotated[int, Range(1)]  # a width, a size, how many of something
Share = Annotated[float, Range(0, 1)]

PLAIN = (typing.Literal, tuple, list, Sequence, dict, Mapping, float, int, bool, str, types.NoneType)


def cast(value: Any, annotation: Any) -> Any:
    """Returns a value as of an annotated type: a list, as JSON has it, becomes a tuple, and 1 a float where one is due.

    Args:
      value: what was given. A bool passes for nothing but itself.
      annotation: a plain type, a union, a literal, `tuple[int, int]`, `tuple[int, ...]`, `Sequence[float]`, a mapping,
        any of these annotated with a `Range`; anything beyond is not judged.

    Returns:
      The value.

    Raises:
      TypeError: it is of another type, or out of range.
    """
    kind, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind is Annotated:
        value = cast(value, inner[0])
        if not all(limits.low <= value <= limits.high for limits in inner[1:] if isinstance(limits, Range)):
            raise TypeError
        return value
    if kind in (typing.Union, types.UnionType):
        for choice in inner:
            with contextlib.suppress(TypeError):
                return cast(value, choice)
        raise TypeError
    if kind in (tuple, list, Sequence) and isinstance(value, (tuple, list)):
        if kind is tuple and inner and inner[-1] is not Ellipsis:
            if len(value) != len(inner):
                raise TypeError
            return tuple(map(cast, value, inner))
        return tuple(cast(item, inner[0] if inner else Any) for item in value)
    if kind is float and isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value)
    if kind is int and isinstance(value, int) and not isinstance(value, bool):
        return value
    if kind in (dict, Mapping) and isinstance(value, Mapping):
        return {key: cast(item, inner[1] if inner else Any) for key, item in value.items()}
    if kind is Any and isinstance(value, (list, tuple, Mapping)):
        return cast(value, Mapping if isinstance(value, Mapping) else tuple)
    if kind in (bool, str, types.NoneType) and isinstance(value, kind):
        return value
    if (kind is typing.Literal and value in inner) or kind not in PLAIN:
        return value
    raise TypeError


def written(annotation: Any) -> str:
    """Writes a type for people: `int`, `one of a, b`, `int | None`, `float from 0 to 1`.

    Args:
      annotation: as in `cast`.

    Returns:
      The text.
    """
    kind, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if kind is Annotated:
        return " ".join([written(inner[0]), *(str(limits) for limits in inner[1:] if isinstance(limits, Range))])
    if kind is tuple and any(typing.get_origin(part) is Annotated for part in inner):
        return f"({', '.join('...' if part is Ellipsis else written(part) for part in inner)})"
    if kind in (typing.Union, types.UnionType):
        return " | ".join(map(written, inner))
    if kind is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if isinstance(annotation, type) and not inner:
        return "None" if annotation is types.NoneType else annotation.__name__
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")
