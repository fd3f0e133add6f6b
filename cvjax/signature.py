"""Validation of values against the annotations of a function or dataclass.

All config values go through `match`: the top level, `data`, and the arguments of recipes, transforms and optimisers.
"""

import contextlib
import dataclasses
import inspect
import math
import types
import typing
from collections.abc import Callable, Mapping, Sequence
from typing import Annotated, Any

from cvjax.errors import UserError, suggest


@dataclasses.dataclass(frozen=True)
class Range:
    """Limits of an annotated number, both included unless `open`."""

    low: int | float = -math.inf
    high: int | float = math.inf
    open: bool = False

    def __contains__(self, value: int | float) -> bool:
        """Returns whether a number is within the limits."""
        return self.low < value < self.high if self.open else self.low <= value <= self.high

    def __str__(self) -> str:
        """Returns, for example, "at least 1" or "from 0 to 1"."""
        if self.open:
            return f"above {self.low:g}"
        return f"at least {self.low:g}" if self.high == math.inf else f"from {self.low:g} to {self.high:.10g}"


Count = Annotated[int, Range(1)]  # a width, a size, a number of things
Seed = Annotated[int, Range(0, 2**32 - 1)]  # larger ones would repeat: a random key holds 32 bits of it
Share = Annotated[float, Range(0, 1)]
Natural = Annotated[int, Range(0)]
Positive = Annotated[float, Range(0, open=True)]
NonNegative = Annotated[float, Range(0)]

PLAIN = (typing.Literal, tuple, list, Sequence, dict, Mapping, float, int, bool, str, types.NoneType)


def cast(value: Any, annotation: Any) -> Any:
    """Converts a value to an annotated type: lists (as in JSON) become tuples, ints become floats; bools stay bools.

    The annotation is a plain type, union, literal, tuple, sequence or mapping, possibly annotated with a `Range`.
    Values of any other type pass unchecked. Raises a TypeError if the value has the wrong type or is out of range.
    """
    kind, inner = typing.get_origin(annotation) or annotation, typing.get_args(annotation)
    if kind is Annotated:
        value = cast(value, inner[0])
        if not all(value in limits for limits in inner[1:] if isinstance(limits, Range)):
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


def describe_type(annotation: Any) -> str:
    """Returns a type as users read it: `int`, `one of a, b`, `int | None`, `float from 0 to 1`."""
    kind, inner = typing.get_origin(annotation), typing.get_args(annotation)
    if kind is Annotated:
        return " ".join([describe_type(inner[0]), *(str(limits) for limits in inner[1:] if isinstance(limits, Range))])
    if kind is tuple and any(typing.get_origin(part) is Annotated for part in inner):
        return f"({', '.join('...' if part is Ellipsis else describe_type(part) for part in inner)})"
    if kind in (typing.Union, types.UnionType):
        return " | ".join(map(describe_type, inner))
    if kind is typing.Literal:
        return f"one of {', '.join(map(str, inner))}"
    if isinstance(annotation, type) and not inner:
        return "None" if annotation is types.NoneType else annotation.__name__
    return str(annotation).replace("collections.abc.", "").replace("typing.", "")


@dataclasses.dataclass(frozen=True)
class Argument:
    """The type of an argument of a function, or of a field of a dataclass, and whether it lacks a default."""

    annotation: Any
    required: bool


def arguments_of(called: Callable, without: Sequence[str] = ()) -> dict[str, Argument]:
    """Returns the arguments of a function or dataclass by name, except those in `without`."""
    hints = typing.get_type_hints(called, include_extras=True)
    return {
        name: Argument(hints.get(name, Any), parameter.default is inspect.Parameter.empty)
        for name, parameter in inspect.signature(called).parameters.items()
        if name not in without
    }


def refuse_unused(called: Callable, why: str, **values: Any) -> None:
    """Raises a UserError for values that are not the defaults of a recipe's arguments; `why` they would be ignored."""
    parameters = inspect.signature(called).parameters
    for name, value in values.items():
        default = parameters[name].default
        if dataclasses.is_dataclass(default):
            fields = [field.name for field in dataclasses.fields(default)]
            changed = {
                f"{name}.{field}": getattr(value, field)
                for field in fields
                if getattr(value, field) != getattr(default, field)
            }
        else:
            changed = {} if value == default else {name: value}
        for key, setting in changed.items():
            raise UserError(f"config.recipe.{key}={setting!r} would be ignored: {why}. Leave it out.")


def match(
    values: Mapping[str, Any], arguments: Mapping[str, Argument], where: str, call: str = "", also: Sequence[str] = ()
) -> dict[str, Any]:
    """Returns values as `cast` converts them to the types of their arguments; mappings of fields become dataclasses.

    `where` is the setting that holds the values, such as "config.recipe"; `call` the called function, such as "resize",
    for messages that read like a call; `also` has other names to suggest for an unknown one.
    """
    place = f"{where}: {call}" if call and where else where or call
    for name in values:
        if name not in arguments:
            advice = suggest(name, [*arguments, *also])
            unknown = f"{place} has no argument {name!r}" if call else f"{where}.{name}: there is no such key"
            raise UserError(f"{unknown}. {advice}")
    for name, argument in arguments.items():
        if argument.required and name not in values:
            raise UserError(f"{place} needs a value for {name!r}." if call else f"{where}.{name} is missing.")
    checked = {}
    for name, value in values.items():
        named, annotation = f"{place}: {name}" if call else f"{where}.{name}", arguments[name].annotation
        if dataclasses.is_dataclass(annotation) and not isinstance(value, annotation):
            if not isinstance(value, Mapping):
                keys = ", ".join(annotation.__annotations__)
                raise UserError(f"{named}={value!r}: expected a group of keys, {keys}.")
            checked[name] = annotation(**match(value, arguments_of(annotation), named))
            continue
        try:
            checked[name] = cast(value, annotation)
        except TypeError:
            raise UserError(f"{named}={value!r}: expected {describe_type(annotation)}.") from None
    return checked
