"""Splits that lists of files give, so that what the owner of a folder holds out is never trained on."""

import box_folders
import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import boxed, folder, layouts
from cvjax.data.annotations import Annotations
from cvjax.data.box_files import read
from cvjax.errors import UserError
from cvjax.programs import annotations


def write(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


def stems(root, split):
    return sorted(picture.file.stem for picture in boxed.open_split(root, split).pictures)


def kit(root, lists, count=6):
    """Pascal VOC's development kit."""
    box_folders.write(root, "VOC", ("JPEGImages",), count)
    (root / "Annotations").mkdir()
    for file in (root / "JPEGImages").glob("*.xml"):
        file.rename(root / "Annotations" / file.name)
    write(root, {f"ImageSets/Main/{name}.txt": text for name, text in lists.items()})
    return root


def flat(root, files, names="", count=6):
    """YOLO's images and labels in one folder; `names` are further lines of the yaml."""
    box_folders.write(root, "YOLO", ("images",), count)
    text = (root / "images/data.yaml").read_text()
    (root / "images/data.yaml").unlink()
    write(root, {"data.yaml": text + names, **files})
    return root


@pytest.mark.parametrize(
    ("lists", "splits"),
    [
        (dict(train="0\n1\n", val="2\n", trainval="0\n1\n2\n"), {"train": "01", "val": "2"}),
        (dict(train="0\n", val="2\n", trainval="0\n2\n", test="4\n5"), {"train": "0", "val": "2", "test": "45"}),
        (dict(trainval="0\n2\n3\n1\n", test="5\n4\n"), {"train": "0123", "test": "45"}),
        (dict(train="0.png\n1.png\n", val="3\r\n\r\n2\r\n", cat_train="5 -1\n4  1\n"), {"train": "01", "val": "23"}),
        (dict(train="0\n1\n"), {"train": "01"}),
    ],
)
def test_lists_of_a_development_kit_of_voc(tmp_path, lists, splits):
    root = kit(tmp_path / "outer/VOC2007", lists)
    write(root, {"ImageSets/Layout/test.txt": "0 1\n1 1\n", "ImageSets/Segmentation/val.txt": "0\n"})
    for place in (root, tmp_path / "outer"):
        assert {split: "".join(stems(place, split)) for split in splits} == splits
    for absent in {"train", "val", "test"} - splits.keys():
        with pytest.raises(UserError, match=rf"has no such split.*Known: {', '.join(sorted(splits))}"):
            boxed.open_split(root, absent)


PATHS = {"train": "images/0.png\nimages/1.png\n", "held": "images/4.png\n"}


@pytest.mark.parametrize(
    ("files", "names"),
    [
        ({"train.txt": "images/0.png\n./images/1.png\n", "valid.txt": "4.png\n"}, ""),
        ({"data/train.txt": "../images/0.png\n../images/1.png\n", "data/Val.txt": "../images/4.png\n"}, ""),
        ({"train.txt": "/old/set/images/0.png\n/old/set/images/1.png\n", "val.txt": "C:\\old\\images\\4.png\n"}, ""),
        ({"train.txt": "data/obj/0.png\ndata/obj/1.png\n", "val.txt": "data/obj/4\n"}, ""),
        ({"train.txt": PATHS["train"], "test.txt": PATHS["held"]}, "train: train.txt\nval: ./test.txt\n"),
        ({"train2017.txt": PATHS["train"], "val2017.txt": PATHS["held"]}, "train: train2017.txt\nval: val2017.txt\n"),
        (
            {"lists/a.txt": "images/0.png", "lists/b.txt": "images/1.png", "lists/c.txt": PATHS["held"]},
            "path: /old/set\ntrain: [lists/a.txt, lists/b.txt]\nval:\n- /old/set/lists/c.txt\ntest:\n",
        ),
    ],
)
def test_lists_of_yolo(tmp_path, files, names, capsys):
    root = flat(tmp_path, {"test.txt": "Notes of a test, not a list.", **files}, names)
    assert (stems(root, "train"), stems(root, "val")) == (["0", "1"], ["4"])
    line = f"Leaving out 3 of 6 images of {root}, which are in no list of a split: images/2.png, images/3.png, "
    assert capsys.readouterr().err == f"{line}images/5.png\n"
    path, found = folder.open_root(root)
    refused, noted = annotations.check(path, read(path, found))
    assert refused == [] and "images/3.png is in no list of a split, and left out" in noted


@pytest.mark.parametrize("prefix", ["", "../", "images/", "/old/set/images/"])
def test_folders_that_yolos_yaml_names(tmp_path, prefix):
    root = box_folders.write(tmp_path, "YOLO", ("a/images", "b/images", "c/images"), 3)
    for file in root.glob("*/images/data.yaml"):
        file.unlink()
    names = f"names: [cat, dog]\ntrain: [{prefix}a/images, {prefix}b]\nval: {prefix}c/images\n"
    write(root, {"data.yaml": names})
    files = boxed.open_split(root, "train").files
    assert [file.relative_to(root).parts[0] for file in files] == ["a"] * 3 + ["b"] * 3
    assert {file.relative_to(root).parts[0] for file in boxed.open_split(root, "val").files} == {"c"}
    (root / "data.yaml").rename(root / "c/data.yaml")
    with pytest.raises(UserError, match=r"c/data.yaml:2: .* has no 'nowhere' for the split 'train': mend or remove"):
        write(root, {"c/data.yaml": "names: [cat, dog]\ntrain: nowhere\nval: images\n"})
        boxed.open_split(root, "val")


def test_folders_that_the_yaml_names_are_of_the_split_that_it_says(tmp_path):
    root = box_folders.write(tmp_path, "YOLO", ("images/train2012", "images/val2012", "images/test2007"), 2)
    for file in root.glob("images/*/data.yaml"):
        file.unlink()
    held_out = "val: images/test2007\ntest: images/test2007\n"
    write(root, {"data.yaml": f"names: [cat, dog]\ntrain: [images/train2012, images/val2012]\n{held_out}"})
    assert [stems(root, split) for split in ("train", "val", "test")] == [["0", "0", "1", "1"], ["0", "1"], ["0", "1"]]
    write(root, {"data.yaml": "names: [cat, dog]\ntrain: images\n"})
    with pytest.raises(UserError, match=r"data.yaml:2: images/test2007/0.png is in the folder of the split 'test'"):
        boxed.open_split(root, "train")


def test_a_list_that_the_yaml_names_by_an_absolute_path(tmp_path, monkeypatch):
    names = f"train: {tmp_path}/set/a.txt\nval: {tmp_path}/set/b.txt\n"
    root = flat(tmp_path / "set", {"a.txt": PATHS["train"], "b.txt": PATHS["held"]}, names)
    monkeypatch.chdir(tmp_path)
    for place in (root, "set", "set/../set"):
        assert (stems(place, "train"), stems(place, "val")) == (["0", "1"], ["4"])


def test_what_is_held_out_may_share_images(tmp_path):
    lists = {"train.txt": PATHS["train"], "val.txt": "images/4.png\nimages/5.png\n", "test.txt": "images/4.png\n"}
    root = flat(tmp_path, lists)
    assert [stems(root, split) for split in ("train", "val", "test")] == [["0", "1"], ["4", "5"], ["4"]]


def test_an_empty_text_is_a_list_beside_others_only(tmp_path):
    root = flat(tmp_path, {"notes/test.txt": "", "notes/dev.txt": "\n", "val.txt": "\n"})
    divided = [stems(root, split) for split in ("train", "test")]
    assert [len(found) for found in divided] == [5, 1]
    write(root, {"train.txt": PATHS["train"]})
    with pytest.raises(UserError, match=r"^val.txt:1: the list of the split 'val' is empty"):
        boxed.open_split(root, "train")
    (root / "val.txt").unlink()
    assert stems(root, "train") == ["0", "1"]


def test_lists_that_agree_with_folders_or_divide_nothing_change_nothing(tmp_path):
    folders = box_folders.write(tmp_path / "folders", "YOLO", ("train", "valid"), 3)
    plain = [boxed.open_split(folders, split).pictures for split in ("train", "val")]
    one = flat(tmp_path / "one", {})
    hashed = [boxed.open_split(one, split).files for split in ("train", "test")]
    (folders / "valid/data.yaml").unlink()
    (folders / "train/data.yaml").unlink()
    for lines in ("", "train: ../train/images\nval: ../valid/images\ntest: ../test/images\n", "train: train\n"):
        write(folders, {"data.yaml": f"names: [cat, dog]\n{lines}"})
        for before, split in zip(plain, ("train", "val"), strict=True):
            found = boxed.open_split(folders, split).pictures
            assert [(each.file, each.boxes) for each in found] == [(each.file, each.boxes) for each in before]
    write(one, {"train.txt": "".join(f"images/{index}.png\n" for index in range(6))})
    assert [boxed.open_split(one, split).files for split in ("train", "test")] == hashed


@pytest.mark.parametrize(
    ("files", "names", "message"),
    [
        ({"train.txt": PATHS["train"], "val.txt": "\n"}, "", r"val.txt:1: the list of the split 'val' is empty"),
        (
            {"train.txt": PATHS["train"], "test.txt": "images/4.png\nimages/1.png"},
            "",
            r"images/1.png is of the split 't\w+' by t\w+.txt:2, and of 't\w+' by t\w+.txt:2: leave it in one",
        ),
        (
            {},
            "train: images\nval: images\n",
            r"data.yaml:2 and :3 name the same images for train and val: remove one line",
        ),
        (
            {"val.txt": "/old/x7.png\n"},
            "",
            r"val.txt:1: .* 'val' names no image of .*, first '/old/x7.png'",
        ),
        ({}, "train: images\nval: valid/images\n", r"data.yaml:3: .* has no 'valid/images' for the split 'val'"),
        ({}, "val: lists/val.txt\n", r"data.yaml:2: .* has no 'lists/val.txt' for the split 'val'"),
        ({"a.txt": "images/1.txt\n"}, "val: a.txt\n", r"a.txt:1: the list of the split 'val' names no image"),
        (
            {"a.txt": PATHS["train"]},
            "test: a.txt\nval: a.txt\ntrain: a.txt\n",
            r"yaml:2 and :4 name .* for test and tr",
        ),
        ({}, "val: ../outside.txt\n", r"data.yaml:2: the list '../outside.txt' is outside .*set: move it into this"),
        ({}, "val: val.txt\n", r"data.yaml:2: .* has no 'val.txt' for"),
        ({"val.txt": ""}, "val: val.txt\n", r"val.txt:1: the list of the split 'val' is empty"),
    ],
)
def test_faults_of_lists_are_named_by_file_and_line(tmp_path, files, names, message):
    root = flat(tmp_path / "set", files, names)
    (tmp_path / "outside.txt").write_text("0.png\n")
    with pytest.raises(UserError, match=message):
        boxed.open_split(root, "train")


def test_lists_that_contradict_folders_or_files_of_boxes(tmp_path):
    root = box_folders.write(tmp_path / "folders", "VOC", ("train", "test"), 2)
    write(root, {"train.txt": "train/0.png\ntest/1.png\n"})
    with pytest.raises(UserError, match=r"train.txt:2: test/1.png is in the folder of the split 'test', and this list"):
        boxed.open_split(root, "train")
    write(root, {"train.txt": "train/0.png\n"})  # of the folder train/ only this; the folder test/ has no list
    assert (stems(root, "train"), stems(root, "test")) == (["0"], ["0", "1"])
    coco = box_folders.write(tmp_path / "coco", "COCO", ("a", "b"), 2)
    for place, name in (("a", "train.json"), ("b", "val.json")):
        (coco / place / "boxes.json").rename(coco / place / name)
    write(coco, {"val.txt": "b/0.png\n"})
    assert (stems(coco, "train"), stems(coco, "val")) == (["0", "1"], ["0"])
    write(coco, {"val.txt": "b/0.png\na/1.png"})
    with pytest.raises(UserError, match=r"a/1.png is of .* 'train' by a/train.json:\d+, and of 'val' by val.txt:2"):
        boxed.open_split(coco, "train")


def test_a_listed_image_that_is_missing_is_a_fault(tmp_path, capsys):
    root = kit(tmp_path / "kit", dict(train="0\n1\n7\n", val="2\n"))
    assert annotations.main([str(root), f"--output={tmp_path}/sheet.png"]) == 1
    printed, said = capsys.readouterr()
    assert f"Leaving out 3 of 6 images of {root}" in said
    assert "training refuses 1:\nImageSets/Main/train.txt:3: there is no image '7', or more than one\n" in printed
    assert "JPEGImages/5.png is in no list of a split, and left out" in printed
    square = (dict(op="letterbox", size=(32, 32)),)
    chosen = dict(folder=str(root), batch=1, max_boxes=4, eval_split="val", transforms=square, eval_transforms=square)
    with pytest.raises(UserError, match=r"train.txt:3: there is no image '7'"):
        data.load(chosen, seed=0)
    assert data.load({**chosen, "on_corrupt": "skip"}, seed=0).info["examples"] == {"train": 2, "val": 1}
    (root / "ImageSets/Main/val.txt").write_text("8\n")
    with pytest.raises(UserError, match=r"ImageSets/Main/val.txt:1: .* names no image"):
        boxed.open_split(root, "train")


@pytest.mark.parametrize(
    ("lists", "split", "outcome"),
    [
        (dict(train="0\n", val="1\n", trainval="0\n1\n"), "validation", ["1"]),
        (dict(train="0\n", val="1\n", trainval="0\n1\n"), "trainval", ["0", "1"]),
        (dict(trainval="0\n2\n", test="1\n"), "train", ["0", "2"]),
        (dict(train="0\n", val="1\n", trainaug="0\n2\n", train_1_8=""), "trainaug", ["0", "2"]),
        (dict(train_1_8="3\n"), "train_1_8", ["3"]),
        (dict(trainaug="3\n", val="1\n"), "train", r"data.eval_split='train': .* no such split.* Known: trainaug, val"),
        (dict(train="0\n", val="1\n"), "test", r"data.eval_split='test': .* has no such split.* Known: train, val"),
        (dict(train="0\n", val="1\n7\n"), "val", r"Segmentation/val.txt:2: there is no image '7'"),
        (dict(train="0\n", val=""), "val", r"Segmentation/val.txt:1: the list of the split 'val' is empty"),
        (
            dict(train="0\n1\n", val="1\n"),
            "val",
            r"JPEGImages/1.png is of .*train.txt:2.*'val' by .*val.txt:1",
        ),
    ],
)
def test_the_splits_of_vocs_segmentation(tmp_path, lists, split, outcome):
    write(tmp_path, {f"ImageSets/Segmentation/{name}.txt": text for name, text in lists.items()})
    for part in ("JPEGImages", "SegmentationClass"):
        (tmp_path / part).mkdir()
        for index in range(4):
            Image.fromarray(np.full((8, 6), index, np.uint8)).save(tmp_path / part / f"{index}.png")
    maps = {"class_map": dict(source=str(tmp_path / "SegmentationClass"), classes="voc")}
    chosen = dict(folder=str(tmp_path), batch=1, class_maps=maps, train_split=split, eval_split=split)
    if isinstance(outcome, str):
        with pytest.raises(UserError, match=outcome.replace("eval", "(train|eval)")):
            data.load(chosen, seed=0)
        return
    named = layouts.named_splits(tmp_path, Annotations.of(chosen))
    assert split in named or split == "validation"
    batches = data.load(chosen, seed=0).evaluate()
    assert [str(batch["class_map"].max()) for batch in batches] == outcome
