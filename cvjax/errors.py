"""Errors for the user: what was wrong, where, and what would be right; and the words of counts in messages."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A user's mistake or an environment failure, explained by the message.

    `train.py` and every `python -m cvjax...` print the message without a traceback and exit with code 1.
    """


class Stopped(Exception):
    """A signal stopped a run after it saved a checkpoint. The programs exit with code 3."""


def number_of(count: int, noun: str) -> str:
    """Returns a count with its noun, "1 box" or "2,000 boxes"; the noun is given in the singular."""
    if count == 1:
        return f"1 {noun}"
    if noun.endswith("y") and noun[-2] not in "aeiou":
        return f"{count:,} {noun[:-1]}ies"
    return f"{count:,} {noun}{'es' if noun.endswith(('s', 'x', 'ch', 'sh')) else 's'}"


def suggest(name: object, choices: Iterable[str]) -> str:
    """Returns the end of an error message about a wrong name: `Did you mean 'x'? Known: ...`."""
    choices = sorted(str(choice) for choice in choices)
    paths = [choice for choice in choices if "." in str(name) and "/" not in choice]  # import paths
    last = {path.rpartition(".")[2]: path for path in paths}
    close = [last[near] for near in difflib.get_close_matches(str(name).rpartition(".")[2], last, n=1, cutoff=0.6)]
    close = close or difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    nearest = f"Did you mean {close[0]!r}? " if close else ""
    return f"{nearest}Known: {', '.join(choices) or 'none'}."


def suggest_beside(path: Path) -> str:
    """Returns `Did you mean 'x'?` for a missing path if a sibling has a similar name, else an empty string."""
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    except OSError:
        beside = []
    return suggest(path.name, beside).partition("Known:")[0].rstrip()
