"""The files of a run survive crashes, and bars are compared as written."""

import contextlib
import errno
import json
import math
import os
import socket
import subprocess
import sys

import pytest

from cvjax import rundir
from cvjax.errors import UserError


def test_metrics_survive_a_crash_in_mid_line(tmp_path):
    rows = [{"step": 1, "split": "train", "loss/total": 0.5}, {"step": 2, "split": "train", "loss/total": 0.25}]
    text = "".join(map(rundir.metrics_line, rows))
    for cut in range(len(text)):
        (tmp_path / "metrics.jsonl").write_text(text[:cut])
        assert rundir.read_metrics(tmp_path) == rows[: text[:cut].count("\n")]


def test_metrics_that_are_not_finite_are_valid_json_and_come_back(tmp_path):
    values = {"step": 1, "split": "train", "a": math.nan, "b": math.inf, "c": -math.inf, "d": 1e-300}
    line = rundir.metrics_line(values)
    # Strict JSON: Python's reader takes the bare words NaN and Infinity too, browsers do not.
    strict = json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    assert strict["b"] == "Infinity"
    (tmp_path / "metrics.jsonl").write_text(line)
    (row,) = rundir.read_metrics(tmp_path)
    assert math.isnan(row.pop("a")) and row == {"step": 1, "split": "train", "b": math.inf, "c": -math.inf, "d": 1e-300}


def test_a_large_file_gives_rows_spread_over_it_and_the_last_of_each_split(tmp_path):
    rows = [{"step": step, "split": "train", "loss": 1.0} for step in range(1, 1001)]
    rows[500:500] = [{"step": 500, "split": "eval", "fid": 2.0}]
    rows += [{"step": 1000, "split": "eval", "fid": 1.0}, {"step": 1000, "split": "verdict", "fid": 1.0}]
    (tmp_path / "metrics.jsonl").write_text("".join(map(rundir.metrics_line, rows)))
    assert rundir.sample_metrics(tmp_path, 1000) == rows
    few = rundir.sample_metrics(tmp_path, 10)
    assert [row["step"] for row in few if row["split"] == "train"] == list(range(100, 1001, 100))
    assert [row for row in few if row["split"] != "train"] == [row for row in rows if row["split"] != "train"]
    assert rundir.sample_metrics(tmp_path / "none", 10) == []


def test_the_end_of_the_last_line_is_found_from_behind(tmp_path, monkeypatch):
    monkeypatch.setattr(rundir, "BLOCK", 4)
    for text in ("", "a", "abcdefghij", "a\n", "abc\ndefghijklmno", "ab\ncd\nefghijkl\n"):
        (tmp_path / "file").write_text(text)
        assert rundir.end_of_last_line(tmp_path / "file") == text.rfind("\n") + 1


HOLDS = """
import pathlib, sys
from cvjax import rundir
with rundir.hold(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def test_a_folder_is_held_by_one_process_and_free_again_once_it_is_killed(tmp_path):
    command = [sys.executable, "-c", HOLDS, str(tmp_path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        assert other.stdout.readline() == "held\n"
        who = rf"{tmp_path} is in use: process {other.pid} on {socket.gethostname()} has trained there since 20"
        with pytest.raises(UserError, match=who), rundir.hold(tmp_path):
            pass
        other.kill()
    with rundir.hold(tmp_path):  # although the file names the process that died
        assert json.loads((tmp_path / rundir.LOCK).read_text())["process"] == os.getpid()
    assert (tmp_path / rundir.LOCK).read_text() == ""
    with pytest.raises(OSError, match="from within"), rundir.hold(tmp_path):
        raise OSError("from within")


def test_without_locks_the_named_process_counts(tmp_path, monkeypatch):
    def lockf(*_):
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(rundir.fcntl, "lockf", lockf)
    gone = subprocess.Popen([sys.executable, "-c", ""])
    gone.wait()
    here = socket.gethostname()
    known = [(gone.pid, here, False), (os.getppid(), here, True), (os.getpid(), here, False)]
    for process, host, alive in [*known, (1, "elsewhere", True), (os.getpid(), "elsewhere", True)]:
        (tmp_path / rundir.LOCK).write_text(json.dumps({"process": process, "host": host, "since": "today"}))
        refused = pytest.raises(
            UserError, match=rf"process {process} on {host}.* today.*If that process is gone, delete"
        )
        with refused if alive else contextlib.nullcontext(), rundir.hold(tmp_path):
            pass


def test_room_is_asked_for_only_where_the_disk_is_full(tmp_path):
    for number, advice in {
        errno.ENOSPC: "Make room",
        errno.EDQUOT: "Make room",
        errno.EACCES: r"denied\. Choose",
    }.items():
        with pytest.raises(UserError, match=advice), rundir.explain_write_errors(tmp_path):
            raise OSError(number, os.strerror(number))


def test_no_metrics_yet(tmp_path):
    assert rundir.read_metrics(tmp_path) == []


def test_a_damaged_line_is_named(tmp_path):
    (tmp_path / "metrics.jsonl").write_text('{"step": 1, "split": "train"}\n{"step": 2, \n{"step": 3}\n')
    with pytest.raises(UserError, match=r"metrics\.jsonl, line 2,"):
        rundir.read_metrics(tmp_path)


def test_a_folder_that_is_no_run(tmp_path):
    with pytest.raises(UserError, match=f"{tmp_path} is not the folder of a run"):
        rundir.read_config(tmp_path)
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json is not JSON"):
        rundir.read_config(tmp_path)


def test_writing_leaves_the_old_file_until_the_new_one_is_whole(tmp_path):
    path = tmp_path / "new" / "page.html"
    rundir.write_atomically(path, "old")
    (tmp_path / "new" / "page.html.part").symlink_to("/dev/full")  # every write to it fails: no space left on device
    with pytest.raises(UserError, match=r"Cannot write .*page\.html: No space left"):
        rundir.write_atomically(path, "new")
    assert path.read_text() == "old"


@pytest.mark.parametrize(
    ("relation", "below", "equal", "above"),
    [
        ("<=", True, True, False),
        ("<", True, False, False),
        (">=", False, True, True),
        (">", False, False, True),
        ("==", False, True, False),
    ],
)
def test_relations(relation, below, equal, above):
    for value, met in ((0.8, below), (0.9, equal), (1.0, above), (math.nan, False)):
        ((name, got, _, bar, judged),) = rundir.check_bars({"fid": (relation, 0.9)}, {"fid": value, "other": 1.0})
        assert (name, bar, judged) == ("fid", 0.9, met)
        assert got == value or math.isnan(value)


def test_a_missing_figure_meets_no_bar():
    ((_, value, _, _, met),) = rundir.check_bars({"fid": ["<=", 1]}, {})  # a list: as config.json has it
    assert math.isnan(value) and met is False


@pytest.mark.parametrize(
    ("condition", "message"),
    [
        (("=<", 0.9), r"expect\.fid has the relation '=<'.*Known: <, <=, ==, >, >="),
        ((0.9,), r"expect\.fid is \(0\.9,\); expected a relation"),
        (("<=", "0.9"), "a relation and a number"),
        (("<=", None), "a relation and a number"),
    ],
)
def test_a_bar_that_is_not_understood(condition, message):
    with pytest.raises(UserError, match=message):
        rundir.check_bars({"fid": condition}, {})


def test_a_smoke_run_shows_its_figures_without_a_verdict(trained_run):
    run = trained_run("configs/vae_digits.py:smoke")
    assert "steps" in rundir.read_config(run)["changed_settings"]
    page = (run / "report.html").read_text()
    assert "No verdict: the bars of this config are for other settings" in page
    assert "bits_per_dim" in page and "✗ not met" not in page and "bar ≤" not in page
