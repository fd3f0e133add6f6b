"""Proposals are computed ahead of training and measured by one command."""

import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image
from processes import environment

from cvjax import config, data
from cvjax.programs import proposals

CONFIG = "configs/rcnn_scenes.py"


def run(*arguments):
    command = [sys.executable, "-m", "cvjax.programs.proposals", *arguments]
    where = dict(cwd=Path(__file__).parents[2], env=environment(), text=True)
    return subprocess.run(command, **where, capture_output=True, timeout=300)


def test_they_are_computed_measured_and_drawn(tmp_path):
    output = tmp_path / "recall.png"
    done = run(f"--config={CONFIG}:smoke", f"--output={output}", f"--config.data.derive_dir={tmp_path / 'kept'}")
    assert done.returncode == 0, done.stderr
    assert "train: 64 images, 64 computed" in done.stdout and "test: 32 images, 32 computed" in done.stdout
    assert len(list((tmp_path / "kept").glob("selective_search-*/*/*.npy"))) == 96
    line = next(line for line in done.stdout.splitlines() if line.split()[:2] == ["proposals", "100"])
    assert 0.4 < float(line.split()[2]) < 1  # 40 proposals
    assert np.asarray(Image.open(output)).std() > 0


def test_several_kinds_are_measured_side_by_side(tmp_path):
    experiment = config.load(f"{CONFIG}:proposals")
    settings = config.as_dict(experiment.data) | {"name": "digit_scenes/smoke", "derive_dir": str(tmp_path)}
    settings |= {"train_split": "train[:4]", "eval_split": "test[:9]", "batch": 4, "eval_batch": 4}
    assert data.refresh_derived(settings) == {"train[:4]": (4, 4, 0), "test[:9]": (9, 9, 0)}
    best = proposals.measure(settings, list(settings["derive"]))
    assert set(best) == {"proposals", "edges", "grid"} and len({len(overlaps) for overlaps in best.values()}) == 1
    counted = sum(batch["mask"][batch["valid"]].sum() for batch in data.load(settings, seed=0).evaluate())
    assert len(best["grid"]) <= counted
    assert (proposals.table(best).count("\n")) == 3 * 7
    assert proposals.draw(best).shape[2] == 3


def test_a_figure_of_another_kind_is_refused_before_anything_is_computed():
    wrong = run(f"--config={CONFIG}:smoke", "--output=recall.jpg")
    assert wrong.returncode == 1 and "the curves are a PNG, such as recall.png" in wrong.stderr
    assert "computing" not in wrong.stdout
