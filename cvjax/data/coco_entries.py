"""The lists of COCO's json, with the lines on which their entries begin."""

import bisect
import json
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from cvjax.data.sources import decode_text, readable
from cvjax.errors import UserError

Entries = dict[str, list[tuple[dict, int]]]


def read(file: Path) -> Entries | None:
    """Returns {list: (entry, line)}, None if the file is not in COCO's format; raises a UserError if it is damaged."""
    content, fault = decode_text(file.read_bytes())
    try:
        entries = _entries(content)
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


def _entries(content: str) -> Entries:
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
