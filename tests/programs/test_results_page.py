"""Seeds are folded beside the present bars, and rows are marked whose code or settings have changed."""

from pathlib import Path

import numpy as np
import pytest

from cvjax import config
from cvjax.programs import provenance, results_page

ROOT = Path(__file__).parents[2]
VAE = "configs/vae_digits.py"


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(provenance, "changed_since", lambda commit, files: commit == "0" * 40)
    yield
    results_page._changed.cache_clear()


def row(path=VAE, seed=7, commit="1" * 40, figures=None, **changes):
    experiment = config.load(path)
    return {
        "config": path,
        "seed": seed,
        "system": experiment.system,
        "data": "digits",
        "parameters": 5,
        "steps": experiment.steps,
        "minutes": 1.0,
        "device": "1 x cpu",
        "date": "2026-11-21",
        "settings": config.bar_settings(experiment),
        "figures": figures or {"bits_per_dim": 2.0 + seed / 100, "iwae_gain": 0.1, "active_units": 8.0},
        "commit": commit,
        **changes,
    }


def cells(path, rows):
    """The cells of all tables' lines."""
    results_page.write(path / "RESULTS.md", rows)
    lines = (path / "RESULTS.md").read_text().splitlines()
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]


def test_seeds_are_folded_beside_the_present_bar(tmp_path):
    rows = [row(seed=seed) for seed in (5, 10, 30)]
    (line,) = [line for line in cells(tmp_path, rows) if line[1] == "bits_per_dim"]
    values = np.array([2.05, 2.1, 2.3])
    assert line[:3] == ["vae_digits", "bits_per_dim", "<= 2.2"]
    assert [float(number) for number in line[3:6]] == pytest.approx([values.mean(), values.std(ddof=1), 2.3], abs=5e-3)
    assert line[6:] == ["NO, 2 of 3", "5, 10, 30", "`1111111` 2026-11-21"]


def test_a_suggested_bar_is_the_mean_and_two_and_a_half_deviations_rounded_outwards():
    values = (0.812, 0.844, 0.901)
    mean, spread = np.mean(values), np.std(values, ddof=1)
    upper, lower = (results_page.Folded("x", values, relation, None).suggested_bar() for relation in ("<=", ">"))
    assert 0 <= upper - (mean + 2.5 * spread) < 0.01 and 0 <= (mean - 2.5 * spread) - lower < 0.001
    assert results_page.Folded("x", values[:2], "<=", None).suggested_bar() is None
    assert results_page.Folded("x", (8.0, 8.0, 8.0), ">=", None).suggested_bar() == 8.0
    assert results_page.Folded("x", (0.0, 0.0, 0.0), "<=", None).suggested_bar() == 0.0


def test_rows_older_than_their_code_are_marked(tmp_path):
    rows = [row(seed=1), row(seed=2, commit="0" * 40), row(seed=3, commit=None), row(seed=4, commit="2" * 40 + "+")]
    lines = [line for line in cells(tmp_path, rows) if line[0] == "vae_digits"]
    mark = "`0000000` 2026-11-21 †"
    assert lines[0][-1] == f"`1111111` 2026-11-21<br>{mark}<br>2026-11-21<br>`2222222+` 2026-11-21"
    assert lines[-3][-1] == mark  # among the runs, where each stands for itself


def test_rows_with_other_settings_do_not_count(tmp_path):
    other = config.load(VAE)
    other.recipe.beta = 2.0
    old = {"settings": None, "steps": 7}
    rows = [row(seed=1), row(seed=2, settings=config.bar_settings(other)), row(seed=3, **old)]
    del rows[2]["settings"]
    lines = [line for line in cells(tmp_path, rows) if line[0] == "vae_digits"]
    assert lines[0][-2] == "1"
    assert [line[-1].endswith("‡") for line in lines[-3:]] == [False, True, True]


def test_rows_in_bfloat16_stand_apart_beside_the_same_bar(tmp_path):
    rows = [
        row(seed=5),
        row(seed=10, precision="float32"),
        row(seed=30, precision="bfloat16"),
    ]
    lines = [line for line in cells(tmp_path, rows) if line[1] == "bits_per_dim"]
    assert [line[:3] + line[5:8] for line in lines] == [
        ["vae_digits", "bits_per_dim", "<= 2.2", "2.1", "yes", "5, 10"],
        ["vae_digits in bfloat16", "bits_per_dim", "<= 2.2", "2.3", "NO, 0 of 1", "30"],
    ]
    runs = [line[:2] for line in cells(tmp_path, rows) if line[2] == "digits"]
    assert runs == [["vae_digits", "5"], ["vae_digits", "10"], ["vae_digits in bfloat16", "30"]]


def test_a_changed_bar_does_not_change_the_settings(monkeypatch):
    made = row()
    monkeypatch.setattr(results_page, "load_config", lambda path: config.as_dict(experiment))
    experiment = config.load(VAE)
    experiment.expect.bits_per_dim = ("<=", 1.0)
    assert results_page.comparable(made)
    experiment.steps += 1
    assert not results_page.comparable(made)


def test_a_variant_without_bars_of_its_own_has_figures_only(tmp_path):
    rows = [row("configs/yolov2_scenes.py:no_passthrough", figures={"ap": 0.6, "map_voc07": 0.9})]
    lines = [line for line in cells(tmp_path, rows) if line[0] == "yolov2_scenes-no_passthrough"]
    assert [line[:4] + line[6:7] for line in lines[:2]] == [
        ["yolov2_scenes-no_passthrough", "ap", "", "0.6", ""],
        ["yolov2_scenes-no_passthrough", "map_voc07", "", "0.9", ""],
    ]


def test_a_config_that_is_gone_keeps_its_runs(tmp_path):
    lines = cells(tmp_path, [row() | {"config": "configs/gone.py"}])
    (line,) = [line for line in lines if line[0] == "gone"]
    assert "bits_per_dim 2.07" in line[-2] and line[-1].endswith("‡")


def test_configs_of_equal_competitors_share_a_table(tmp_path):
    noise = {"noise": {"fid": 40.0}, "copies": {"fid": 0.1, "kl": 2.0}, "empty": {"kl": 1.0}}
    rows = [
        row("configs/wgan_digits.py", figures={"fid": 0.8}, controls=noise),
        row("configs/dcgan_digits.py", figures={"fid": 0.6}, controls=noise),
        row(controls={"noise": {"bits_per_dim": 4.0}}),
    ]
    lines = cells(tmp_path, rows)
    text = (tmp_path / "RESULTS.md").read_text()
    assert "## Controls of dcgan_digits, wgan_digits\n" in text and "## Controls of vae_digits\n" in text
    start = lines.index(["", "fid"])
    assert lines[start + 2 : start + 6] == [
        ["**dcgan_digits** (seed 7)", "0.6"],
        ["**wgan_digits** (seed 7)", "0.8"],
        ["noise", "40"],
        ["copies", "0.1"],
    ]
