"""RESULTS.md: rows come from runs, a row replaces its predecessor, and a missed bar is exit code 1."""

import json
from pathlib import Path

import pytest

from cvjax import config
from cvjax.errors import UserError
from cvjax.programs import results

ROOT = Path(__file__).parents[2]


def row(name="vae_digits", seed=7, met="yes", figure="fid 0.5 <= 0.9"):
    cells = dict.fromkeys(results.COLUMNS, "x")
    return {**cells, "config": name, "seed": str(seed), "figure and bar": figure, "met": met}


def rows_of(path):
    lines = [line for line in path.read_text().splitlines() if line.startswith("| ") and "---" not in line]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_a_row_replaces_that_of_the_same_config_and_seed_only(tmp_path):
    path = tmp_path / "RESULTS.md"
    for entry in [row(seed=10), row(seed=7), row("dcgan_digits"), row(seed=7, met="NO", figure="fid 2 <= 0.9")]:
        results.write_results(path, entry, {}, {})
    header, *body = rows_of(path)
    assert tuple(header) == results.COLUMNS
    assert [(cells[0], cells[1], cells[-1]) for cells in body] == [
        ("dcgan_digits", "7", "yes"),
        ("vae_digits", "7", "NO"),
        ("vae_digits", "10", "yes"),
    ]


def test_controls_stand_beside_the_system_and_words_around_the_tables_survive(tmp_path):
    path = tmp_path / "RESULTS.md"
    results.write_results(path, row(), {"class means": {"fid": 4.0}}, {"fid": 0.5, "kl": 3.0})
    path.write_text(path.read_text() + "\nWritten by a person.\n")
    results.write_results(path, row("dcgan_digits"), {"noise": {"fid": 40.0}}, {"fid": 0.6})
    results.write_results(path, row(), {"class means": {"fid": 5.0}}, {"fid": 0.4, "kl": 3.0})
    text = path.read_text()
    assert "Written by a person." in text and text.startswith(results.HEADER)
    assert ["**vae_digits** (seed 7)", "0.4"] in rows_of(path) and ["class means", "5"] in rows_of(path)
    assert ["noise", "40"] in rows_of(path) and ["class means", "4"] not in rows_of(path)


def test_systems_of_equal_competitors_share_a_table_and_leave_it_when_these_change(tmp_path):
    path, noise = tmp_path / "RESULTS.md", {"noise": {"fid": 40.0}, "copies": {"fid": 0.1, "kl": 2.0}}
    for name, fid in [("wgan_digits", 0.7), ("dcgan_digits", 0.6), ("wgan_digits", 0.8)]:
        results.write_results(path, row(name), noise, {"fid": fid})
    tables = rows_of(path)[4:]  # after the header and two rows, the table's own header
    assert [cells[0] for cells in tables] == [
        "**dcgan_digits** (seed 7)",
        "**wgan_digits** (seed 7)",
        "noise",
        "copies",
    ]
    assert tables[1][1] == "0.8" and path.read_text().count("## Controls of dcgan_digits, wgan_digits\n") == 1
    results.write_results(path, row("dcgan_digits"), noise | {"copies": {"fid": 0.2}}, {"fid": 0.6})
    assert "## Controls of wgan_digits\n" in path.read_text() and "## Controls of dcgan_digits\n" in path.read_text()
    assert path.read_text().count("**dcgan_digits**") == 1
    before = path.read_text()
    results.write_results(path, row("wgan_digits"), noise, {"fid": 0.8})
    assert path.read_text() == before


def test_the_command_trains_from_scratch_and_says_that_a_bar_was_missed(tmp_path, monkeypatch):
    monkeypatch.chdir(ROOT)
    output, work = tmp_path / "RESULTS.md", tmp_path / "runs"
    arguments = ["configs/vae_digits.py:smoke", "--seed=3", f"--output={output}", f"--workdir={work}"]
    for _ in range(2):
        assert results.main(arguments) == 1  # four steps do not reach the bar
        _, *body = [cells for cells in rows_of(output) if len(cells) == len(results.COLUMNS)]
        assert len(body) == 1
    cells = dict(zip(results.COLUMNS, body[0], strict=True))
    assert cells["config"] == "vae_digits-smoke" and cells["seed"] == "3" and cells["met"] == "NO"
    assert cells["system"] == "generative.autoencoders.vae" and cells["data"] == "digits" and cells["steps"] == "4"
    assert int(cells["parameters"].replace(",", "")) == 19_952
    assert "bits_per_dim" in cells["figure and bar"] and "<= 2.2" in cells["figure and bar"]
    assert "two neighbours" in output.read_text().lower()


def test_by_default_all_configs_run_whose_data_ships(monkeypatch):
    monkeypatch.chdir(ROOT)
    names = results.embedded_configs()
    assert "configs/vae_digits.py" in names and "configs/vae_mnist.py" not in names


def test_mistakes_are_named(monkeypatch):
    monkeypatch.chdir(ROOT)
    with pytest.raises(UserError, match=r"configs/vae_digit\.py"):
        results.main(["configs/vae_digit.py"])
    with pytest.raises(UserError, match="--seed"):
        results.main(["--seed=seven"])
    with pytest.raises(UserError, match="--seed=-1"):
        results.main(["--seed=-1"])


def test_a_missed_bar_and_a_missing_figure_are_not_met(tmp_path, monkeypatch):
    monkeypatch.setattr(results.os, "sched_getaffinity", lambda process: {0, 3}, raising=False)
    experiment = config.load(str(ROOT / "configs/vae_digits.py"))
    facts = {"config": {}, "devices": ["cpu"], "parameters": [["a", "b", 5], ["c", "d", 1000]]}
    (tmp_path / "config.json").write_text(json.dumps(facts))
    good = {"bits_per_dim": 2.1, "iwae_gain": 0.1, "active_units": 8.0}
    assert results.make_row("x", experiment, good, tmp_path, 1.0)["met"] == "yes"
    assert results.make_row("x", experiment, good, tmp_path, 1.0)["parameters"] == "1,005"
    assert results.make_row("x", experiment, good, tmp_path, 1.0)["device"] == "1 x cpu, 2 cores"
    assert results.make_row("x", experiment, {**good, "bits_per_dim": 2.3}, tmp_path, 1.0)["met"] == "NO"
    del good["iwae_gain"]
    assert results.make_row("x", experiment, good, tmp_path, 1.0)["met"] == "NO"
