"""Crash-safe reading and writing of a run's files, and the bars of its figures."""

import contextlib
import json
import math
import operator
import os
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from cvjax.errors import UserError, suggest, suggest_beside
from cvjax.upgrade import upgrade_config

RELATIONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}

# JSON cannot represent these, so they are strings, as in protobuf's JSON.
_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NOT_FINITE = {word: float(value) for value, word in _WORDS.items()}

Verdict = list[tuple[str, float, str, float, bool]]


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl, even while it is being written or after a crash in mid-line.

    Args:
      workdir: the run's folder.

    Returns:
      One dict per row, with `step`, `split` and the metrics as floats ("NaN", "Infinity" and "-Infinity" in the file);
      an empty list if there is no file.
    """
    path = Path(workdir) / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    rows = []
    for number, line in enumerate(content[: end_of_last_line(content)].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}, is not JSON: {line[:60].decode(errors='replace')!r}") from error
        rows.append({name: value if name == "split" else _NOT_FINITE.get(value, value) for name, value in row.items()})
    return rows


def metrics_line(row: Mapping[str, Any]) -> str:
    """Returns one line of metrics.jsonl, as `read_metrics` reads it."""
    finite = {n: _WORDS[str(v)] if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def end_of_last_line(content: bytes) -> int:
    """Returns the end of the last complete line; a crash may have cut off what follows."""
    return content.rfind(b"\n") + 1


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads config.json of a run.

    Args:
      workdir: the run's folder.

    Returns:
      `config`, under the present names of systems and keys, and the facts of the run.
    """
    path = Path(workdir) / "config.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        there = "config.json, which train.py writes, is missing or unreadable"
        absent = f"it does not exist. {suggest_beside(Path(workdir))}".rstrip()
        raise UserError(
            f"{workdir} is not the folder of a run: {there if os.path.isdir(workdir) else absent}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not (isinstance(written, dict) and isinstance(written.get("config"), dict)):
        raise UserError(f"{workdir} is not the folder of a run: its config.json was not written by a run.")
    return {**written, "config": upgrade_config(written["config"])}


def write_atomically(path: Path, content: str | bytes) -> None:
    """Writes a file atomically, creating its folder if necessary.

    Args:
      path: the file.
      content: bytes, or text to encode as UTF-8.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError such as a full disk into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot write {path}: {reason}. Make room there or choose another folder.") from error


def check_bars(expect: Mapping[str, Sequence], values: Mapping[str, SupportsFloat]) -> Verdict:
    """Compares figures with their bars.

    Args:
      expect: `{"fid": ("<=", 0.9)}`; the relations are <=, >=, <, > and ==.
      values: the figures by name.

    Returns:
      (name, value, relation, bar, met) for each bar. A missing figure is NaN, which meets no bar.
    """
    verdict = []
    for name, condition in expect.items():
        match condition:
            case [str(relation), int() | float() as bar] if relation in RELATIONS:
                value = float(values.get(name, math.nan))
                verdict.append((name, value, relation, float(bar), RELATIONS[relation](value, bar)))
            case [str(relation), int() | float()]:
                raise UserError(f"expect.{name} has the relation {relation!r}. {suggest(relation, RELATIONS)}")
            case _:
                raise UserError(f"expect.{name} is {condition!r}; expected a relation and a number, like ('<=', 0.9).")
    return verdict
