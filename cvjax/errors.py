"""Errors for the person at the keyboard: what was wrong, where, and what would be right."""

import difflib
from collections.abc import Iterable
from pathlib import Path


class UserError(Exception):
    """A mistake of the user's, or a misfortune, whose message alone explains it.

    `train.py` and every `python -m cvjax...` print the message without a traceback and exit with code 1.
    """


class Stopped(Exception):
    """A signal stopped a run after a checkpoint; the message says where. The programs exit with code 3."""


def suggest(name: object, choices: Iterable[str]) -> str:
    """Names what would be right in place of a wrong name, as the end of an error message.

    Args:
      name: what the user wrote.
      choices: the names that would be accepted.

    Returns:
      `Did you mean 'x'?` where one is close, followed by the whole list in alphabetical order.
    """
    choices = sorted(str(choice) for choice in choices)
    close = difflib.get_close_matches(str(name), choices, n=1, cutoff=0.5)
    nearest = f"Did you mean {close[0]!r}? " if close else ""
    return f"{nearest}Known: {', '.join(choices) or 'none'}."


def suggest_beside(path: Path) -> str:
    """Names what lies beside a path that is not there and was probably meant: `Did you mean 'x'?`, or nothing.

    Args:
      path: what the user wrote.
    """
    try:
        beside = [entry.name for entry in path.parent.iterdir() if entry.name != path.name]
    except OSError:
        beside = []
    return suggest(path.name, beside).partition("Known:")[0].rstrip()
