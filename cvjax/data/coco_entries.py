"""The lists of COCO's json, and the lines on which their entries begin, which are found when a message needs one."""

import bisect
import contextlib
import dataclasses
import functools
import gc
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from cvjax.data.sources import decode_text, readable
from cvjax.errors import UserError

Entries = dict[str, list[dict]]  # the objects in each list


class Lines:
    """The lines of a json file on which the objects in its lists begin; the file is read again for the first of them.

    Attributes:
      path: the file's name in messages.
    """

    def __init__(self, file: Path, path: str):
        self.file, self.path = file, path

    @functools.cached_property
    def _found(self) -> dict[str, list[int]]:
        try:
            content = decode_text(self.file.read_bytes())[0]
            return {name: [line for _, line in entries] for name, entries in _entries(content).items()}
        except (OSError, ValueError, IndexError, RecursionError):  # it has changed in the meantime
            return {}

    def __getstate__(self) -> dict[str, Any]:
        """Leaves the lines out of what is sent to another process."""
        return {"file": self.file, "path": self.path}

    def find(self, name: str, index: int) -> int | None:
        """Returns the line of an object in the list `name`, None if the file no longer has it."""
        lines = self._found.get(name, ())
        return lines[index] if index < len(lines) else None


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where an entry of a list is: as text, the file, its line and what follows."""

    lines: Lines
    name: str
    index: int
    more: str = ""

    def __str__(self) -> str:
        """Returns the text."""
        line = self.lines.find(self.name, self.index)
        return f"{self.lines.path}{'' if line is None else f':{line}'}{self.more}"


def read(file: Path) -> Entries | None:
    """Returns the lists, None if the file is not in COCO's format; raises a UserError if it is damaged."""
    content, fault = decode_text(file.read_bytes())
    try:
        entries = _lists(content)
    except (ValueError, IndexError, RecursionError) as error:
        entries, fault = {}, f"is not JSON: {error}"
        asked = '"annotations"' in content and '"images"' in content
    else:
        asked = {"images", "annotations", "categories"} <= set(entries)
    if asked and fault:
        raise UserError(f"{readable(file)} {fault}")
    return entries if asked else None


def unique(entries: Iterable[Mapping[str, Any]], key: str, value: str, what: str) -> dict[Any, Mapping[str, Any]]:
    """Returns entries by `key`; raises a UserError, which begins with `what`, if two of one key differ by `value`."""
    found = {}
    for entry in entries:
        first = found.setdefault(entry[key], entry)
        if first.get(value) != entry.get(value):
            raise UserError(
                f"{what} with one {key}, {entry[key]!r}: those of {value} {first.get(value)!r} and {entry.get(value)!r}"
            )
    return found


def id_of(value: Any) -> int | float | str | None:
    """Returns what may be an id, else None."""
    return value if isinstance(value, (int, float, str)) else None


@contextlib.contextmanager
def without_collection() -> Iterator[None]:
    """Keeps Python from looking for cycles of references again and again while millions of objects are made."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()


def _lists(content: str) -> Entries:
    """Reads the lists of objects in the topmost object of a json."""
    try:
        with without_collection():
            read = json.loads(content)
    except ValueError:  # commas too many or too few, or something after the end
        return {name: [entry for entry, _ in entries] for name, entries in _entries(content).items()}
    lists = {name: value for name, value in read.items() if isinstance(value, list)} if isinstance(read, dict) else {}
    return {name: [entry for entry in value if isinstance(entry, dict)] for name, value in lists.items()}


def _entries(content: str) -> dict[str, list[tuple[dict, int]]]:
    """Reads the lists of objects in the topmost object of a json, and the line at which each object begins."""
    ends = [match.start() for match in re.finditer("\n", content)]
    decoder, space = json.JSONDecoder(), re.compile(r"[\s,:]*")
    found, place = {}, space.match(content, 0).end()
    if content[place : place + 1] != "{":
        return {}
    place += 1
    while content[place := space.match(content, place).end()] != "}":
        key, place = decoder.raw_decode(content, place)
        place = space.match(content, place).end()
        if content[place] != "[":
            _, place = decoder.raw_decode(content, place)
            continue
        place, found[key] = place + 1, []
        while content[place := space.match(content, place).end()] != "]":
            value, end = decoder.raw_decode(content, place)
            if isinstance(value, dict):
                found[key].append((value, 1 + bisect.bisect_left(ends, place)))
            place = end
        place += 1
    return found
