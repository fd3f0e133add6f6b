"""The files of a run's folder, written so that a crash at any moment leaves them readable, and the bars of a run."""

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

# JSON has no words for these. As strings, like in protobuf's JSON, an overflow is kept apart from what is undefined.
_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NOT_FINITE = {word: float(value) for value, word in _WORDS.items()}

Verdict = list[tuple[str, float, str, float, bool]]


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Reads metrics.jsonl of a run, also of one that is running or was killed in mid-line.

    Args:
      workdir: the run's folder.

    Returns:
      One dict a row, with `step`, `split` and one float a metric, in the order of writing. What is not finite stands
      in the file as "NaN", "Infinity" or "-Infinity" and is a float here. Without the file, an empty list.

    Raises:
      UserError: a line before the last is not JSON.
    """
    path = Path(workdir) / "metrics.jsonl"
    content = path.read_bytes() if path.exists() else b""
    rows = []
    for number, line in enumerate(content[: whole_lines(content)].splitlines(), 1):
        try:
            row = json.loads(line)
        except ValueError as error:
            raise UserError(f"{path}, line {number}, is not JSON: {line[:60].decode(errors='replace')!r}") from error
        rows.append({name: value if name == "split" else _NOT_FINITE.get(value, value) for name, value in row.items()})
    return rows


def metrics_line(row: Mapping[str, Any]) -> str:
    """Writes one row of metrics.jsonl, as `read_metrics` reads it."""
    finite = {n: _WORDS[str(v)] if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def whole_lines(content: bytes) -> int:
    """Finds the end of the last whole line; what follows it was being written when the process died."""
    return content.rfind(b"\n") + 1


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Reads config.json of a run.

    Args:
      workdir: the run's folder.

    Returns:
      `config`, the run's configuration under its present names, and beside it the run's seed, versions and devices.

    Raises:
      UserError: the folder is not a run's, or the file is not JSON.
    """
    path = Path(workdir) / "config.json"
    try:
        written = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        there = "it has no readable config.json, as train.py writes one into its --workdir"
        absent = f"there is none of that name. {suggest_beside(Path(workdir))}".rstrip()
        raise UserError(
            f"{workdir} is not the folder of a run: {there if os.path.isdir(workdir) else absent}"
        ) from error
    except ValueError as error:
        raise UserError(f"{path} is not JSON: {error}") from error
    if not (isinstance(written, dict) and isinstance(written.get("config"), dict)):
        raise UserError(f"{workdir} is not the folder of a run: its config.json is none that a run wrote.")
    return {**written, "config": upgrade_config(written["config"])}


def write_whole(path: Path, content: str | bytes) -> None:
    """Writes a file so that at any moment it is there whole, either the old or the new one.

    Args:
      path: the file; its folder is created where it is missing.
      content: text, written as UTF-8, or bytes.

    Raises:
      UserError: it cannot be written.
    """
    with explain_writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        draft.write_bytes(content.encode() if isinstance(content, str) else content)
        os.replace(draft, path)


@contextlib.contextmanager
def explain_writing(path: Path) -> Iterator[None]:
    """Turns what goes wrong while writing, a full disk or a forbidden folder, into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise UserError(f"Cannot write {path}: {reason}. Make room there or choose another folder.") from error


def judge(expect: Mapping[str, Sequence], values: Mapping[str, SupportsFloat]) -> Verdict:
    """Compares figures with their bars.

    Args:
      expect: `{"fid": ("<=", 0.9)}`; the relations are <=, >=, <, > and ==.
      values: name to figure.

    Returns:
      (name, value, relation, bar, met) for each expected figure; the value of a missing one is NaN, which meets no bar.

    Raises:
      UserError: a bar is not a relation and a number.
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
                raise UserError(f"expect.{name} is {condition!r}; it has to be a relation and a number: ('<=', 0.9).")
    return verdict
