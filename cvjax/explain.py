"""What each key of a config means, read where it is described: beside the fields, and in the recipe's docstring."""

import dataclasses
import inspect
import re
import typing
from collections.abc import Callable
from typing import Any

from ml_collections import ConfigDict

from cvjax.config import Experiment, find_system
from cvjax.data.settings import Settings


def list_keys(config: ConfigDict) -> dict[str, tuple[Any, str]]:
    """Returns (value, description) of every key by its flag, such as "config.data.batch"; some lack a description."""
    recipe = find_system(config.system).recipe
    described = {
        **{f"config.{name}": text for name, text in describe_fields(Experiment).items()},
        **{f"config.data.{name}": text for name, text in describe_fields(Settings).items()},
        **{f"config.recipe.{name}": text for name, text in describe_arguments(recipe).items()},
    }
    for name, annotation in typing.get_type_hints(recipe).items():
        if dataclasses.is_dataclass(annotation):
            described |= {f"config.recipe.{name}.{key}": text for key, text in describe_group(annotation).items()}
    flags = {name: value for name, value in config.items() if name != "expect_for"}  # which is not a user's to set
    return {key: (value, described.get(key, "")) for key, value in _flatten(flags, "config")}


def describe_fields(kind: type) -> dict[str, str]:
    """Returns the comments at the fields of a dataclass, by name."""
    found = re.findall(r"^    (\w+): [^#]*?# (.+)$", inspect.getsource(kind), re.MULTILINE)
    return {name: text for name, text in found if name in kind.__annotations__}


def describe_group(kind: type) -> dict[str, str]:
    """Returns the descriptions of a group's keys: its docstring's `Attributes`, or the comments at its fields."""
    return describe_fields(kind) | _section(inspect.getdoc(kind) or "", "Attributes")


def describe_arguments(function: Callable) -> dict[str, str]:
    """Returns the descriptions of a function's arguments in its docstring, by name."""
    return _section(inspect.getdoc(function) or "", "Args")


def _section(docstring: str, title: str) -> dict[str, str]:
    """Parses a section of a docstring, in which one line may describe several names."""
    body = re.search(rf"^{title}:\n((?:[ ]+.*\n?|\n)+)", docstring, re.MULTILINE)
    found = {}
    for names, text in re.findall(r"^  (\w[\w, *]*): ((?:.*)(?:\n    .*)*)", body[1] if body else "", re.MULTILINE):
        found |= dict.fromkeys(re.findall(r"\w+", names), re.sub(r"\s+", " ", text))
    return found


def _flatten(node: ConfigDict | dict[str, Any], path: str) -> list[tuple[str, Any]]:
    pairs = []
    for name, value in node.items():
        inside = isinstance(value, ConfigDict) and len(value)
        pairs += _flatten(value, f"{path}.{name}") if inside else [(f"{path}.{name}", value)]
    return pairs
