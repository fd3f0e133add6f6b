"""Values held against type annotations, so that a wrong argument is named before anything is called with it."""

import contextlib
import types
import typing
from collections.abc import Mapping, Sequence
from typing import Any

PLAIN = (typing.Literal, tuple, list, Sequence, dict, Mapping, float, int, bool, str, types.NoneType)


def cast(value: Any, annotation: Any) -> Any:
    """Returns a value as of an annotated type: a list, as JSON has it, becomes a tuple, and 1 a float where one is due.

    Args:
      value: what was given. A bool passes for nothing but itself.
      annotation: a plain type, a union, a literal, `tuple[int, int]`, `tuple[int, ...]`, `Sequence[float]`, a mapping;
        anything beyond is not judged.

    Returns:
      The value.

    Raises:
      TypeError: it is of another type.
    """
    kind, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
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
    """Writes a type for people: `int`, `one of a, b`, `int | None`.

    Args:
      annotation: as in `cast`.

    Returns:
      The text.
    """
    if typing.get_origin(annotation) is typing.Literal:
        return f"one of {', '.join(map(str, typing.get_args(annotation)))}"
    if isinstance(annotation, type) and not typing.get_args(annotation):
        return annotation.__name__
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")
