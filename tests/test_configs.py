"""Every config, found by its file: it is whole, has a bar, takes finite steps, and resumes as if never stopped."""

import contextlib
import importlib.util
import json
import math
import shutil

import house
import jax
import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import config, fit, runs
from cvjax.data import builders
from cvjax.errors import UserError

CONFIGS = list(house.sources("configs/*.py"))


def examples_of(experiment):
    """Random examples in the place of a dataset that would have to be downloaded."""
    name = (experiment.data.name or "").split("/")[0]
    downloaded = name and name not in builders.EMBEDDED
    return tfds.testing.mock_data(num_examples=64) if downloaded else contextlib.nullcontext()


def smoke(path):
    """The smoke variant of a config for three steps, each of them saved."""
    experiment = config.load(f"{path}:smoke")
    experiment.update(steps=3, log_every=1, checkpoint_every=1, checkpoint_keep=3, eval_every=0, figure_every=0)
    return experiment


def metrics(run):
    """The last row of each kind of a run, without those that time it."""
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return {row["split"]: row for row in rows if row["split"] in ("train", "eval")}


@pytest.mark.parametrize("path", CONFIGS)
def test_config_is_whole(path):
    full, small = config.load(path), config.load(f"{path}:smoke")
    assert full.expect and small.system == full.system
    assert 3 <= small.steps <= 20 < full.steps
    assert not any(size % 8 for c in (full, small) for size in (c.data.batch, c.data.eval_batch or 8)), (
        "for eight devices"
    )
    with pytest.raises(UserError, match=r"smok.*'smoke'"):
        config.load(f"{path}:smok")
    spec = importlib.util.spec_from_file_location("config", path)  # as ml_collections' flag does, without a variant
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    assert module.get_config().to_json_best_effort() == full.to_json_best_effort()


@pytest.mark.parametrize("path", CONFIGS)
def test_config_takes_finite_steps_and_resumes_exactly(path, tmp_path):
    with examples_of(smoke(path)):
        straight = fit.fit(smoke(path), tmp_path / "straight")
        shutil.copytree(tmp_path / "straight", tmp_path / "killed")
        shutil.rmtree(tmp_path / "killed" / "checkpoints" / "3")  # as if it had died after step 2
        resumed = fit.fit(smoke(path), tmp_path / "killed")
        one, two = (jax.tree.map(np.asarray, runs.load(tmp_path / run)[2]) for run in ("straight", "killed"))
    rows = metrics(tmp_path / "straight")
    assert {split: row["step"] for split, row in rows.items()} == {"train": 3, "eval": 3}
    assert all(math.isfinite(value) for row in rows.values() for name, value in row.items() if name != "split")
    assert resumed == straight
    assert metrics(tmp_path / "killed") == rows
    jax.tree.map(np.testing.assert_array_equal, two, one)
    assert (tmp_path / "straight" / "report.html").exists() and list((tmp_path / "straight" / "figures").iterdir())
