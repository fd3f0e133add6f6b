"""A run evaluated again gives its figures, on its own data and on others with its classes."""

import argparse
import json
import re

import numpy as np
import pytest
from PIL import Image

from cvjax import data
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
    said = capsys.readouterr().out
    assert "on digits, test:" in said
    assert re.search(
        rf"loading {run} \.\.\.\n(.*\n)*opening digits \.\.\.\n(.*\n)*compiling and evaluating \.\.\.\n", said
    )


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


def chosen(settings, **flags):
    """The settings that a run of these would be evaluated with."""
    arguments = dict.fromkeys(("split", "name", "folder", "masks", "batch")) | {k: str(v) for k, v in flags.items()}
    description = {"config": {"data": {"batch": 2, **settings}, "recipe": {}}}
    return evaluate.choose_data(description, argparse.Namespace(**arguments))


def paint(folder, names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8), len(name) % 2, np.uint8)).save(folder / name)


@pytest.mark.parametrize("splits", [("train", "test"), ("train[:90%]", "train[90%:]"), ("train", "validation")])
def test_all_pictures_of_a_folder_count_unless_it_has_splits(tmp_path, splits):
    run = {"name": "digits", "train_split": splits[0], "eval_split": splits[1]}
    paint(tmp_path / "plain", [f"{'ab'[index % 2]}/{index}.png" for index in range(20)])
    paint(tmp_path / "one", ["1.png"])
    paint(tmp_path / "divided", ["train/1.png", "train/2.png", "test/3.png", "test/4.png", "test/5.png"])

    def count(folder, **flags):
        settings = chosen(run, folder=tmp_path / folder, **flags)
        return data.load(settings, seed=0).info["examples"][settings["eval_split"]]

    assert [count("plain"), count("one"), count("plain", split="test"), count("plain", split="train")] == [20, 1, 2, 18]
    assert [count("divided"), count("divided", split="train")] == [3, 2]
    (tmp_path / "divided" / "test").rename(tmp_path / "divided" / "valid")
    if splits[1] == "validation":
        assert count("divided") == 3


def test_masks_and_further_images_follow_the_folder(tmp_path):
    paint(tmp_path / "old", ["images/1.png", "masks/1.png", "edges/1.png"])
    paint(tmp_path / "new", ["images/1.png", "images/2.png", "masks/1.png", "masks/2.png", "edges/1.png"])
    paint(tmp_path / "bare", ["1.png"])
    masks = {"class_map": {"source": str(tmp_path / "old/masks"), "classes": {"nothing": 0, "thing": 1}}}
    run = {"folder": str(tmp_path / "old/images"), "class_maps": masks}
    moved = chosen(run, folder=tmp_path / "new/images")
    assert moved["class_maps"]["class_map"] == masks["class_map"] | {"source": str(tmp_path / "new/masks")}
    assert data.load(moved, seed=0).info["examples"] == {"test": 2}
    edges = {**run, "class_maps": {}, "images": {"target": str(tmp_path / "old/edges"), "other": "image"}}
    moved = evaluate.move_folders(data.complete(edges), str(tmp_path / "new/images"))
    assert moved["images"] == {"target": str(tmp_path / "new/edges"), "other": "image"}
    with pytest.raises(
        UserError, match=rf"reads 'class_map' from '.*old/masks', the like of which would be {tmp_path}/masks"
    ):
        chosen(run, folder=tmp_path / "bare")
    moved = chosen(run, folder=tmp_path / "bare", masks=tmp_path / "old/masks")
    assert moved["class_maps"]["class_map"]["source"] == str(tmp_path / "old/masks")
    with pytest.raises(
        UserError, match=r"from 'segmentation_mask', and a folder has no such feature\. Give --masks=FOLDER"
    ):
        chosen({"name": "oxford_iiit_pet", "class_maps": {"class_map": "segmentation_mask"}}, folder=tmp_path / "bare")
