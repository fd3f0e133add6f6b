"""Frames are timed with all that detectors do, their windows are counted, and results hold both apart from figures."""

from pathlib import Path

import jax.numpy as jnp
import numpy as np
import pytest
from conftest import unit

from cvjax import config, data, rundir
from cvjax.core import State
from cvjax.data.derive import Derived
from cvjax.errors import UserError
from cvjax.programs import frames, results, results_page

ROOT = Path(__file__).parents[2]
FAST, MASK = "configs/fast_rcnn_scenes.py:smoke", "configs/mask_rcnn_scenes.py:smoke"


@pytest.fixture(autouse=True)
def at_root(monkeypatch):
    monkeypatch.chdir(ROOT)


@pytest.fixture(params=[unit("detection.mask_rcnn")])
def page(trained_run, tmp_path):
    """A page of results whose store has the rows of both runs, and one of another seed."""
    rows = []
    for path, seed in ((FAST, 0), (FAST, 1), (MASK, 0)):
        experiment = config.load(path)
        experiment.seed = seed if seed else rundir.read_config(trained_run(path))["seed"]
        rows.append(results.make_row(path, experiment, {"map_voc07": 0.5, "ap": 0.25}, trained_run(path), 1.0))
    for row in rows:
        results.add_row(tmp_path / "RESULTS.jsonl", row | {"commit": None})
    return tmp_path / "RESULTS.md"


@pytest.mark.slow
def test_runs_are_timed_counted_and_recorded(trained_run, page, capsys):
    assert frames.main([str(trained_run(FAST)), str(trained_run(MASK)), "--frames=2", f"--output={page}"]) == 0
    lines = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if line.startswith("| ")]
    assert [line[0] for line in lines] == ["| system", "| ---", "| fast_rcnn", "| mask_rcnn"]
    rows = {(row["config"], row["seed"]): row for row in results.read_rows(page.with_suffix(".jsonl"))}
    assert len(rows) == 3 and "frame" not in rows[FAST, 1]
    seed = rundir.read_config(trained_run(FAST))["seed"]
    fast, mask = rows[FAST, seed]["frame"], rows[MASK, seed]["frame"]
    settings = config.as_dict(config.load(FAST))
    search = Derived.of("proposals", settings["recipe"]["search"])
    batch = next(data.load(settings["data"], seed=0).evaluate())
    assert fast["windows"] == np.mean([min(len(search.compute(image)), 40) for image in batch["image"][:2]])
    assert 0 < fast["search"] < fast["seconds"] and mask["search"] is None and 0 < mask["windows"] <= 64
    assert fast["frames"] == 2 and fast["pixels"] == [64, 64]
    assert rows[FAST, seed]["figures"] == {"map_voc07": 0.5, "ap": 0.25}
    written = page.read_text()
    assert "## From sliding windows to Mask R-CNN" in written and f"| {fast['windows']:,.0f} | " in written
    results.add_row(page.with_suffix(".jsonl"), rows[FAST, seed] | {"frame": None})  # trained again
    rows = results.read_rows(page.with_suffix(".jsonl"))
    assert sum(bool(row.get("frame")) for row in rows) == 1


def system_of(path):
    return frames.system_of(config.build(config.load(path)))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("yolo_scenes", 8 * 8 * 2),  # cells of 8 pixels, two boxes each
        ("yolov2_scenes", 8 * 8 * 5),
        ("retinanet_scenes", (16**2 + 8**2) * 4),
        ("sliding_window_scenes", None),
    ],
)
def test_windows_are_places_scales_and_anchors(name, expected):
    system, image = system_of(f"configs/{name}.py"), np.zeros((1, 64, 64, 3), np.float32)
    if name == "sliding_window_scenes":
        steps = [(4 / system.core * width, 4 / system.core * height) for width, height in system.sizes]
        expected = 0
        for (across, down), (width, height) in zip(steps, system.sizes, strict=True):
            counts = [
                len(np.arange(0, 64 - side + step - 1e-4, step)) for side, step in ((width, across), (height, down))
            ]
            expected += counts[0] * counts[1]
    assert frames.count_windows(system, State(jnp.int32(0), {}, {}), image) == expected


def row(system, **figures):
    frame = {"seconds": 0.0123, "search": None, "windows": 1234.4, "frames": 3, "pixels": [64, 64], "device": "cpu"}
    return {
        "config": f"configs/{system}_scenes.py",
        "system": f"detection.{system}",
        "seed": 7,
        "figures": figures,
        "frame": frame | {"date": "2026-11-29"},
    }


def test_the_table_goes_by_year():
    given = [row("mask_rcnn", mask_ap=0.7), row("yolo"), row("rcnn"), row("sliding_window", map_voc07=0.5, loss=3.0)]
    lines = results_page.tabulate_frames(given).splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| sliding_window", "| rcnn", "| mask_rcnn", "| yolo"]
    cells = [cell.strip() for cell in lines[2].strip("|").split("|")]
    assert cells[3:] == ["0.500", "", "", "", "1,234", "12.3", "", "cpu, 3 of 64x64, 2026-11-29"]
    assert all(line.count("|") == lines[0].count("|") for line in lines)


def test_times_are_no_figures_that_a_bar_could_be_set_for(tmp_path):
    path = "configs/sliding_window_scenes.py"
    experiment = config.load(path)
    rows = []
    for seed in (1, 2, 3):
        figures = {"map_voc07": 0.78 + seed / 100, "ap": 0.3}
        known = {"seed": seed, "settings": config.bar_settings(experiment), "figures": figures, "config": path}
        rows.append(row("sliding_window") | known)
    assert {figure.name for figure in results_page.fold(path, rows)} == {"map_voc07", "ap"}
    assert not any(
        "seconds" in line or "window" in line.split(":")[1] for line in results_page.suggest_bars(path, rows)
    )


@pytest.mark.slow
def test_mistakes_are_named(trained_run, tmp_path):
    vae = trained_run("configs/vae_digits.py:smoke")
    with pytest.raises(UserError, match=r"is of generative\.autoencoders\.vae, which is no detector"):
        frames.main([str(vae)])
    with pytest.raises(UserError, match=r"--frames=0: must be at least 1"):
        frames.main([str(vae), "--frames=0"])
    with pytest.raises(UserError, match=r"there is no .*RESULTS\.jsonl beside it"):
        frames.main([str(vae), f"--output={tmp_path / 'RESULTS.md'}"])
    with pytest.raises(UserError, match="not the folder of a run"):
        frames.main([str(tmp_path)])
