"""A run evaluated again gives its figures, on its own data and on others with its classes."""

import json

import numpy as np
import pytest
from PIL import Image

from cvjax.errors import UserError
from cvjax.programs import evaluate
from cvjax.rundir import read_metrics

RUN = "configs/classifier_digits.py:smoke"


@pytest.fixture(scope="module")
def run(trained_run):
    return trained_run(RUN)


def figures(run, tmp_path, *arguments):
    evaluate.main([f"--run={run}", f"--output={tmp_path / 'figures.json'}", *arguments])
    return json.loads((tmp_path / "figures.json").read_text())


def test_a_run_reaches_its_own_figures(run, tmp_path, capsys):
    rows = [row for row in read_metrics(run) if row["split"] == "eval"]
    found = figures(run, tmp_path)
    assert found.keys() == rows[-1].keys() - {"step", "split"}
    for name, value in found.items():  # on one device, not on eight
        assert value == pytest.approx(rows[-1][name], rel=1e-5)
    assert "on digits, test:" in capsys.readouterr().out


def test_other_splits_and_folders_are_taken_and_other_classes_refused(run, tmp_path, monkeypatch):
    taken = {}

    def watch(recipe, eval_step, state, examples, mesh):
        batches = list(examples.evaluate())
        taken["labels"] = np.concatenate([batch["label"][batch["valid"]] for batch in batches])
        return {"accuracy": 1.0}

    monkeypatch.setattr(evaluate, "evaluate", watch)
    assert figures(run, tmp_path, "--split=train") == {"accuracy": 1.0} and len(taken["labels"]) == 1297
    for index in range(40):
        path = tmp_path / "folder" / ("train" if index % 2 else "test") / str(index // 2 % 10) / f"{index}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(path)
    figures(run, tmp_path, f"--folder={tmp_path / 'folder'}", "--batch=8")
    assert sorted(taken["labels"]) == sorted([*range(10)] * 2)
    with pytest.raises(UserError, match="give either --name=DATASET or --folder=PATH"):
        evaluate.main([f"--run={run}", "--name=digits", "--folder=x"])
    for index in range(2):
        path = tmp_path / "two" / "ab"[index] / f"{index}.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(path)
        Image.fromarray(np.full((8, 8), index, np.uint8)).save(path.with_name("other.png"))
    with pytest.raises(UserError, match=r"two has the classes a, b; the run was trained on 0, 1, 2"):
        evaluate.main([f"--run={run}", f"--folder={tmp_path / 'two'}"])
