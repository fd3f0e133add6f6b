"""The folder that a run leaves: appended, resumed, read back; and the lines that it prints."""

import io
import json
import math
import os
import re
import sys
import types

import jax.numpy as jnp
import numpy as np
import PIL.Image
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from cvjax import record as record_module
from cvjax.errors import UserError
from cvjax.record import Record
from cvjax.rundir import read_config, read_metrics


def test_config_is_written_with_facts_command_and_parameters(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["train.py", "--config=configs/x y.py"])
    record = Record(tmp_path / "new" / "run", steps=10)
    record.start({"system": "generative.autoencoders.vae", "lr": jnp.float32(0.5), "betas": (0.5, 0.9)}, {"seed": 3})
    record.parameters({"decoder": {"Dense_0": {"kernel": jnp.zeros((4, 3)), "bias": jnp.zeros(3)}}})
    written = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
    assert written["config"] == {"system": "generative.autoencoders.vae", "lr": 0.5, "betas": [0.5, 0.9]}
    assert written["seed"] == 3 and written["command"] == "python train.py '--config=configs/x y.py'"
    assert written["parameters"] == [["decoder/Dense_0", "bias 3, kernel 4×3", 15]]
    printed = capsys.readouterr().out
    assert "generative.autoencoders.vae: 10 steps" in printed and re.search(r"parameters +15\n", printed)
    again = Record(tmp_path / "new" / "run", steps=20)
    again.start({"system": "generative.autoencoders.vae"}, {"seed": 3})
    rewritten = json.loads((tmp_path / "new" / "run" / "config.json").read_text())
    assert rewritten["started"] == written["started"]  # a run that is resumed began when it began


def test_paths_that_are_not_utf_8_are_written_and_read_back(tmp_path, capsys):
    path = os.fsdecode(b"/x/caf\xe9/\xc3\xa9")
    workdir = tmp_path / os.fsdecode(b"\xe9")
    record = Record(workdir, steps=3)
    record.start({"data": {"folder": path}}, {})
    record.scalars(1, "train", {"loss": 1.0})
    record.rewind(1)
    record.close()
    assert read_config(workdir)["config"]["data"]["folder"] == path
    assert "é" in (workdir / "config.json").read_text(encoding="utf-8")
    assert r"caf\udce9" in (workdir / "report.html").read_text(encoding="utf-8")
    assert rf"recorded in {tmp_path}/\xe9" in capsys.readouterr().out


def test_scalars_are_rows_and_events(tmp_path):
    record = Record(tmp_path, steps=10)
    record.scalars(5, "train", {"loss/generator": jnp.float32(0.25), "loss/discriminator": np.float64(0.5)})
    record.scalars(5, "eval", {"fid": 3})
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert rows[0] == {"step": 5, "split": "train", "loss/generator": 0.25, "loss/discriminator": 0.5}
    assert rows[1] == {"step": 5, "split": "eval", "fid": 3.0}
    events = EventAccumulator(str(tmp_path)).Reload()  # before close: nothing waits in a queue
    assert set(events.Tags()["scalars"]) == {"train/loss/generator", "train/loss/discriminator", "eval/fid"}
    assert [(e.step, e.value) for e in events.Scalars("train/loss/generator")] == [(5, 0.25)]


def test_figures_are_files_and_events(tmp_path):
    record = Record(tmp_path, steps=10)
    images = np.random.default_rng(0).uniform(size=(4, 64, 64, 3)).astype(np.float32)
    path = record.figure(7, "samples/ema", images)
    assert path == tmp_path / "figures" / "samples" / "ema" / "00000007.png"
    pixels = np.asarray(PIL.Image.open(path))
    np.testing.assert_array_equal(pixels[:64, 66:, :3], np.round(255 * images[1]))
    (event,) = EventAccumulator(str(tmp_path)).Reload().Images("samples/ema")
    assert event.step == 7
    np.testing.assert_array_equal(np.asarray(PIL.Image.open(io.BytesIO(event.encoded_image_string))), pixels)


def test_killed_and_resumed_run_has_each_row_once(tmp_path):
    def train(record, steps):
        for step in steps:
            record.scalars(step, "train", {"loss/total": 1 / step})
            record.figure(step, "samples", np.full((8, 8, 1), 1 / step))

    record = Record(tmp_path, steps=12)
    train(record, range(1, 9))
    record.verdict({"loss/total": 0.1})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 9, "spl')  # killed while writing
    resumed = Record(tmp_path, steps=12)
    resumed.rewind(6)
    resumed.verdict({"loss/total": 0.1})  # the run had ended, and now has more steps
    resumed.rewind(6)
    assert [row["step"] for row in read_metrics(tmp_path)] == [1, 2, 3, 4, 5, 6]
    assert len(list((tmp_path / "figures" / "samples").glob("*.png"))) == 6
    train(resumed, range(7, 13))
    straight = [{"step": step, "split": "train", "loss/total": 1 / step} for step in range(1, 13)]
    assert read_metrics(tmp_path) == straight
    events = EventAccumulator(str(tmp_path), size_guidance={"scalars": 0, "images": 0}).Reload()
    assert [event.step for event in events.Scalars("train/loss/total")] == list(range(1, 13))
    assert [event.step for event in events.Images("samples")] == list(range(1, 13))


def test_a_record_that_is_opened_again_goes_on_after_the_last_whole_line(tmp_path):
    Record(tmp_path, steps=2).scalars(1, "train", {"loss": 1.0})
    with open(tmp_path / "metrics.jsonl", "a") as file:
        file.write('{"step": 2')
    Record(tmp_path, steps=2).scalars(2, "train", {"loss": 2.0})
    assert [row["loss"] for row in read_metrics(tmp_path)] == [1.0, 2.0]


def test_plain_progress_lines(tmp_path, capsys, monkeypatch):
    clock = iter([0.0, 10.0])
    monkeypatch.setattr("cvjax.record.time.monotonic", lambda: next(clock))
    record = Record(tmp_path, steps=400)
    record.scalars(100, "train", {"loss/generator": 0.8312, "loss/discriminator": 1.0})
    record.scalars(200, "speed", {"steps_per_second": 411.7})
    record.scalars(200, "train", {"loss/generator": 0.5, "loss/discriminator": math.nan})
    record.scalars(200, "eval", {"fid": 12.345})
    assert capsys.readouterr().out.splitlines() == [
        "step 100/400  loss/generator 0.831  loss/discriminator 1",
        # 100 steps took 10 s by the clock, evaluations included, and 200 are left.
        "step 200/400  loss/generator 0.5  loss/discriminator NaN  411.7 steps/s  eta 00:20",
        "eval at step 200/400  fid 12.35",
    ]


def test_a_terminal_gets_a_bar_and_lines_go_above_it(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    record = Record(tmp_path, steps=400)
    record.scalars(100, "train", {"loss/total": 0.8})
    record.scalars(200, "train", {"loss/total": 0.4})
    record.say("a checkpoint was written")
    record.close()
    out, err = capsys.readouterr()
    assert out == "a checkpoint was written\n"
    assert "100/400" in err and "200/400" in err and "loss/total 0.4" in err
    assert err.index("200/400") < len(err) - 1 and err.endswith("\n")  # the bar is ended


def test_the_bar_keeps_its_width_on_a_narrow_terminal(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("tqdm.std._screen_shape_wrapper", lambda: lambda _: (80, 24))
    record = Record(tmp_path, steps=400)
    record.scalars(100, "train", {f"loss/part_{number}": 0.5 for number in range(9)})
    record.scalars(200, "train", {f"loss/part_{number}": 0.5 for number in range(9)})
    record.close()
    last = [line for line in re.split(r"[\r\n]+", capsys.readouterr().err) if "200/400" in line][-1]
    assert len(last) == 80 and re.search(r"50%\|.{20}\| 200/400 \d\d:\d\d left, ", last)


def test_what_takes_long_is_said_with_the_last_time(tmp_path, capsys, monkeypatch):
    record = Record(tmp_path, steps=10)
    for begun, ended in [(0, 3.26), (10, 10.5), (20, 20.5)]:
        clock = types.SimpleNamespace(perf_counter=iter([begun, ended]).__next__)
        with monkeypatch.context() as patch:
            patch.setattr(record_module, "time", clock)
            with record.doing("evaluating"):
                pass
    assert capsys.readouterr().out.splitlines() == ["evaluating ...", "evaluating ... (the last time 3.3 s)"]
    record.scalars(1, "speed", {"compile_seconds": 44.0})
    again = Record(tmp_path, steps=10)  # resumed
    with again.doing(record_module.COMPILING):
        pass
    assert capsys.readouterr().out == "compiling the training step ... (the last time 44 s)\n"


def test_verdict_prints_each_figure_beside_its_bar(tmp_path, capsys):
    record = Record(tmp_path, steps=10, expect={"fid": ("<=", 0.9), "smallest_class": (">=", 0.05), "gone": (">", 0)})
    verdict = record.verdict({"fid": 0.8321, "smallest_class": math.nan, "not_expected": 1.0})
    assert [met for *_, met in verdict] == [True, False, False]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split() for line in lines] == [
        ["figure", "value", "bar"],
        ["fid", "0.8321", "<=", "0.9", "✓", "met"],
        ["smallest_class", "NaN", ">=", "0.05", "✗", "missed"],
        ["gone", "NaN", ">", "0", "✗", "missed"],
    ]
    assert read_metrics(tmp_path)[-1]["fid"] == 0.8321


def test_other_processes_write_and_print_nothing(tmp_path, capsys):
    record = Record(tmp_path / "run", steps=10, expect={"fid": ("<=", 0.9)}, active=False)
    record.start({}, {})
    record.parameters({})
    record.rewind(0)
    record.scalars(1, "train", {"loss": 1.0})
    record.say("hello")
    assert record.figure(1, "samples", np.zeros((8, 8, 1))).name == "00000001.png"
    assert record.verdict({"fid": 0.5}) == [("fid", 0.5, "<=", 0.9, True)]  # all processes know how it ended
    assert record.report() == tmp_path / "run" / "report.html"
    record.close()
    assert not (tmp_path / "run").exists() and capsys.readouterr() == ("", "")


def test_folder_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=f"Cannot write {tmp_path / 'file' / 'run'}: Not a directory"):
        Record(tmp_path / "file" / "run", steps=1)


def test_full_disk(tmp_path):
    resource = pytest.importorskip("resource")
    record = Record(tmp_path, steps=10)
    record.scalars(1, "train", {"loss": 1.0})
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, hard))  # files of at most ten bytes
    try:
        with pytest.raises(UserError, match=r"Cannot write .*metrics\.jsonl: File too large"):
            record.scalars(2, "train", {"loss": 1.0})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_bad_bar_is_said_before_training(tmp_path):
    with pytest.raises(UserError, match=r"expect\.fid has the relation"):
        Record(tmp_path / "run", steps=1, expect={"fid": ("=<", 0.9)})
    assert not (tmp_path / "run").exists()
