"""Crash-safe reading and writing of a run's files, and the bars of its figures."""

import contextlib
import datetime
import errno
import fcntl
import inspect
import itertools
import json
import math
import operator
import os
import re
import socket
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, SupportsFloat

from cvjax.errors import UserError, suggest, suggest_beside
from cvjax.upgrade import upgrade_config

RELATIONS = {"<=": operator.le, ">=": operator.ge, "<": operator.lt, ">": operator.gt, "==": operator.eq}

# JSON cannot represent these, so they are strings, as in protobuf's JSON.
_WORDS = {"nan": "NaN", "inf": "Infinity", "-inf": "-Infinity"}
_NOT_FINITE = {word: float(value) for value, word in _WORDS.items()}

BLOCK = 1 << 16  # bytes that are read at once from the end of a file
LOCK = "lock"

Verdict = list[tuple[str, float, str, float, bool]]


def read_metrics(workdir: str | Path) -> list[dict[str, Any]]:
    """Returns the rows of metrics.jsonl, even while it is written or after a crash in mid-line; [] without a file.

    Rows have `step`, `split` and the metrics as floats ("NaN", "Infinity" and "-Infinity" in the file).
    """
    return list(iterate_metrics(workdir))


def iterate_metrics(workdir: str | Path) -> Iterator[dict[str, Any]]:
    """Yields the rows of `read_metrics` one by one, for files of any size."""
    path = Path(workdir) / "metrics.jsonl"
    for number, line in enumerate(_lines(path), 1):
        yield _parse(path, number, line)


def sample_metrics(workdir: str | Path, most: int) -> list[dict[str, Any]]:
    """Returns about `most` rows of each split, or all if it has fewer, spread evenly over metrics.jsonl.

    They are in order, the last of each split among them.
    """
    path = Path(workdir) / "metrics.jsonl"
    counts: dict[bytes, int] = {}
    for line in _lines(path):
        counts[_split(line)] = counts.get(_split(line), 0) + 1
    rows, seen = [], dict.fromkeys(counts, 0)
    for number, line in enumerate(itertools.islice(_lines(path), sum(counts.values())), 1):
        split = _split(line)
        seen[split] += 1
        stride = -(-counts[split] // most)
        if (counts[split] - seen[split]) % stride == 0:
            rows.append(_parse(path, number, line))
    return rows


def _lines(path: Path) -> Iterator[bytes]:
    """Yields the complete lines of a file, which may be absent."""
    if not path.exists():
        return
    with open(path, "rb") as file:
        yield from (line for line in file if line.endswith(b"\n"))


def _split(line: bytes) -> bytes:
    """Returns the split of a line without parsing it, in quotation marks; lines of unusual form share one."""
    return line.partition(b'"split": ')[2].partition(b",")[0]


def _parse(path: Path, number: int, line: bytes) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise UserError(
            f"{path}, line {number}, is not JSON: {line.rstrip()[:60].decode(errors='replace')!r}"
        ) from error
    return {name: value if name == "split" else _NOT_FINITE.get(value, value) for name, value in row.items()}


def metrics_line(row: Mapping[str, Any]) -> str:
    """Returns one line of metrics.jsonl, as `read_metrics` reads it."""
    finite = {n: _WORDS[str(v)] if isinstance(v, float) and not math.isfinite(v) else v for n, v in row.items()}
    return json.dumps(finite, allow_nan=False) + "\n"


def end_of_last_line(path: Path) -> int:
    """Returns the end of a file's last complete line; a crash may have cut off what follows."""
    with open(path, "rb") as file:
        end = file.seek(0, os.SEEK_END)
        while end:
            begin = max(0, end - BLOCK)
            file.seek(begin)
            found = file.read(end - begin).rfind(b"\n")
            if found >= 0:
                return begin + found + 1
            end = begin
    return 0


def read_config(workdir: str | Path) -> dict[str, Any]:
    """Returns config.json of a run: `config`, under the present names of systems and keys, and the facts of the run."""
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


def write_atomically(path: Path, content: str | bytes | Iterable[str]) -> None:
    """Writes a file atomically, creating its folder if necessary; text, also in parts, is encoded as UTF-8.

    What of a path is not UTF-8 is escaped in JSON's way, so that JSON reads it back.
    """
    with explain_write_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        draft = path.with_name(path.name + ".part")
        with open(draft, "wb") as file:
            for part in (content,) if isinstance(content, (str, bytes)) else content:
                file.write(part.encode(errors="backslashreplace") if isinstance(part, str) else part)
        os.replace(draft, path)


@contextlib.contextmanager
def explain_write_errors(path: Path) -> Iterator[None]:
    """Turns an OSError such as a full disk into a UserError that names the path."""
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        advice = "Make room there or choose another folder." if disk_is_full(error) else "Choose another folder."
        raise UserError(f"Cannot write {path}: {reason}. {advice}") from error


def disk_is_full(error: Exception) -> bool:
    """Returns whether an error of writing says that there is no space left, or no more of the user's share of it."""
    return getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT) or os.strerror(errno.ENOSPC) in str(error)


@contextlib.contextmanager
def hold(workdir: Path) -> Iterator[None]:
    """Keeps other processes from training in an existing run's folder; raises a UserError if another one trains there.

    The file `lock` is locked as network file systems support it (`lockf`), and says who holds it; the system releases
    it when this process dies. On a file system without locks, the process that it names counts.
    """
    path = workdir / LOCK
    with explain_write_errors(path):
        file = open(path, "a+b")  # noqa: SIM115 (open as long as the folder is held)
    with file:
        try:
            fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            locked, holder = error.errno in (errno.EACCES, errno.EAGAIN), _holder(file)
            if locked or _alive(holder):
                who = "process {process} on {host} has trained there since {since}".format_map(holder)
                advice = "" if locked else f" If that process is gone, delete {path}."
                raise UserError(f"{workdir} is in use: {who}. Give another --workdir, or stop it.{advice}") from None
        since = datetime.datetime.now().astimezone().isoformat(sep=" ", timespec="seconds")
        mine = {"process": os.getpid(), "host": socket.gethostname(), "since": since}
        with explain_write_errors(path):
            file.truncate(0)
            file.write(json.dumps(mine).encode())
            file.flush()
        try:
            yield
        finally:
            file.truncate(0)


def _holder(file: Any) -> dict[str, Any]:
    """Returns the process, host and time that a lock file names."""
    file.seek(0)
    unknown = dict.fromkeys(("process", "host", "since"), "unknown")
    with contextlib.suppress(ValueError, TypeError):
        return unknown | json.loads(file.read())
    return unknown


def _alive(holder: Mapping[str, Any]) -> bool:
    """Returns whether a process exists, as far as can be known: one on another host may, whatever its number."""
    if holder["process"] == "unknown" or holder["host"] != socket.gethostname():
        return holder["process"] != "unknown"
    if holder["process"] == os.getpid():  # whoever had this number before is gone
        return False
    with contextlib.suppress(ProcessLookupError):
        with contextlib.suppress(PermissionError):
            os.kill(int(holder["process"]), 0)
        return True
    return False


def name_sources(borrowed: Mapping[str, str], arguments: Mapping[str, inspect.Parameter]) -> list[str]:
    """Returns the names of the networks that `config.borrow` gives, a package's behind one that may be left out.

    `arguments` are those of the system's recipe.
    """
    given = {name: source for name, source in borrowed.items() if source}
    free = {name for name in given.keys() & arguments.keys() if arguments[name].default is None}
    packaged = {name for name in free if given[name].startswith("package:")}
    return sorted(f"{name}={source}" if name in packaged else name for name, source in given.items())


def name_judge(judge: str) -> str:
    """Returns a judge by its name, wherever its run lies; runs by several seeds, NAME-seed7, are the same judge."""
    return re.sub(r"-seed\d+/", "/", "/".join(judge.split("/")[-2:]))


def check_bars(expect: Mapping[str, Sequence], values: Mapping[str, SupportsFloat]) -> Verdict:
    """Returns (name, value, relation, bar, met) for each bar of `expect`, `{"fid": ("<=", 0.9)}`.

    The relations are <=, >=, <, > and ==. A missing figure is NaN, which meets no bar.
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
