"""Which folders are splits, whatever they are called, so that nothing held out is trained on."""

import json
import weakref

import box_folders
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import boxed, coco_entries, folder, splits
from cvjax.errors import UserError


def write(path):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (8, 6)).save(path)


def load(path, **settings):
    return data.load({"folder": str(path), "batch": 4, **settings}, seed=0)


def test_splits_have_several_names_in_any_case(tmp_path):
    for name in ("Train", "VALID", "testing"):
        for label in "ab":
            write(tmp_path / name / label / "1.png")
    loaded = load(tmp_path, eval_split="val")
    assert loaded.info["classes"] == ("a", "b")
    assert loaded.info["examples"] == {"train": 2, "val": 2}
    assert load(tmp_path, train_split="Training", eval_split="validation").info["examples"]["validation"] == 2
    assert {file.parts[-3] for file in folder.open_split(tmp_path, "test").files} == {"testing"}


@pytest.mark.parametrize(
    ("stray", "message"),
    [
        ("extra/1.png", r"extra is beside the splits test, train and belongs to none"),
        ("preview.png", r"preview\.png is beside the splits"),
        ("a/1.png", r"/a is beside the splits .* If 'test' is a class, .* folders train/ and test/"),
        ("Training/a/1.png", r"two folders for the split 'train': Training and train\. Join them"),
        ("train_set/a/1.png", r"folders for the split 'train': train and train_set.*into folders train/ and test/"),
    ],
)
def test_nothing_else_may_be_beside_splits(tmp_path, stray, message):
    for name in ("train/a/1.png", "test/a/1.png", stray):
        write(tmp_path / name)
    with pytest.raises(UserError, match=message):
        data.check({"folder": str(tmp_path)})


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("Train Set", "Test Set"),
        ("train2017", "val2017"),
        ("train_images", "test_images"),
        ("seg_train", "seg_test"),
        ("trainset", "validset"),
        ("train-set", "test-set"),
        ("imgs.train", "imgs.dev"),
        ("training_set/training_set", "test_set/test_set"),
    ],
)
def test_splits_are_known_by_their_affixes_too(tmp_path, names):
    for name in names:
        for label in "ab":
            write(tmp_path / name / label / "1.png")
    held_out = "test" if "test" in names[1].lower() else "val"
    source = folder.open_split(tmp_path, "train")
    assert source.classes == ("a", "b") and source.labels == (0, 1)
    assert {file.relative_to(tmp_path).parts[0] for file in source.files} == {names[0].split("/")[0]}
    assert len(folder.open_split(tmp_path, held_out)) == 2


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("trainA", "trainB", "testA", "testB"), r"splits of two domains, testA, testB, trainA, trainB\..*also=dict"),
        (
            ("cats_train", "cats_test"),
            r"cats_test, cats_train: if they are splits, name them train/.*into folders train/ and test/",
        ),
        (("archive/train", "archive/test"), r"archive/test has the name of a split.*give data.folder='.*/archive'"),
        (("x/data/train/cat",), r"x/data/train has the name of a split.*give data.folder='.*x/data'"),
        (("cat/train", "cat/test", "dog/train"), r"cat/test has the name of a split.*train/cat, not cat/train"),
        (("one/train", "one/test", "one/more"), r"one/test has the name of a split"),
    ],
)
def test_what_seems_to_be_a_split_is_not_silently_a_class(tmp_path, names, message):
    for name in names:
        write(tmp_path / name / "1.png")
        write(tmp_path / name / "2.png")
    with pytest.raises(UserError, match=message):
        data.check({"folder": str(tmp_path)})


@pytest.mark.parametrize(
    "names",
    [
        ("train/train", "train/car", "test/train"),  # the vehicle, among classes
        ("model train", "test_tube", "car"),
        ("testa", "car"),
        ("vehicles/train", "vehicles/car"),  # further folders of one class
        ("contest", "strain", "sunset"),
    ],
)
def test_classes_may_be_called_like_splits(tmp_path, names):
    for name in names:
        for index in range(3):
            write(tmp_path / name / f"{index}.png")
    classes = {name.split("/")[-1 if "train/train" in names else 0] for name in names}
    assert set(folder.open_split(tmp_path, "train").classes) == classes


@pytest.mark.parametrize("empty", ["test", "Test_Set", "images/val"])
def test_an_empty_split_is_called_empty(tmp_path, empty):
    write(tmp_path / "train" / "1.png")
    (tmp_path / empty).mkdir(parents=True)
    split = "val" if "val" in empty else "test"
    with pytest.raises(UserError, match=rf"data.eval_split='{split}': .*{empty} holds no images\. Known: train"):
        data.check({"folder": str(tmp_path), "eval_split": split})


def test_splits_of_boxes_by_folders_and_by_files_with_affixes(tmp_path):
    sets = box_folders.write(tmp_path / "sets", "COCO", ("training_set", "test_set"))
    flat = box_folders.write(tmp_path / "flat", "COCO")
    content = json.loads((flat / "boxes.json").read_text())
    for name, images in (("trainset", content["images"][:8]), ("testset", content["images"][8:])):
        known = [image["id"] for image in images]
        own = [one for one in content["annotations"] if one["image_id"] in known]
        (flat / f"{name}.json").write_text(json.dumps({**content, "images": images, "annotations": own}))
    (flat / "boxes.json").unlink()
    for root, counts in ((sets, (12, 12)), (flat, (8, 4))):
        assert tuple(len(boxed.open_split(root, split)) for split in ("train", "test")) == counts
    (flat / "trainset.json").rename(flat / "instances_trainval2017.json")
    assert tuple(len(boxed.open_split(flat, split)) for split in ("train", "test")) == (8, 4)
    (flat / "instances_trainval2017.json").rename(flat / "other.json")
    with pytest.raises(UserError, match=r"boxes for the splits test, and other.json:1 is in one whose name says no"):
        boxed.open_split(flat, "train")
    (tmp_path / "outer/images").mkdir(parents=True)
    sets.rename(tmp_path / "outer/images/sets")
    hidden = r"outer/images/sets/test_set has the name of a split.* move it up into .*outer, and its annotations alike"
    with pytest.raises(UserError, match=hidden):
        boxed.open_split(tmp_path / "outer", "train")
    (tmp_path / "outer/images/train").mkdir()
    (tmp_path / "outer/images/sets/training_set").rename(tmp_path / "outer/images/train/x")
    with pytest.raises(UserError, match=r"outer/images/sets is beside the splits train and belongs"):
        boxed.open_split(tmp_path / "outer", "train")


def test_cocos_files_divide_images_that_lie_deeper_and_are_not_held_together(tmp_path, monkeypatch):
    root = box_folders.write(tmp_path, "COCO", ("raw/train2017", "raw/val2017", "raw/test2017"), 2)
    for split in ("train", "val", "test"):
        content = json.loads((root / f"raw/{split}2017/boxes.json").read_text())
        (root / f"raw/{split}2017/boxes.json").unlink()
        for image in content["images"]:
            image["file_name"] = f"raw/{split}2017/{image['file_name']}"
        (root / f"instances_{split}.json").write_text(json.dumps(content))
    read, alive = coco_entries.read, []

    class Held(dict):
        """A dict to which weak references may lead."""

    def watched(file):
        assert sum(reference() is not None for reference in alive) < 2
        entries = Held(read(file))
        alive.append(weakref.ref(entries))
        return entries

    monkeypatch.setattr(coco_entries, "read", watched)
    for split in ("train", "val", "test"):
        assert {file.parent.name for file in boxed.open_split(root, split).files} == {f"{split}2017"}


TOGETHER = r"-1f3f[b-f]|1f46[89]"


def test_variants_of_a_picture_stay_in_one_split_of_either_folder(tmp_path):
    names = [f"{emoji:x}{tone}" for emoji in range(0x1F300, 0x1F314) for tone in ("", "-1f3fb", "-1f3fc")]
    names += ["1f468-2695", "1f469-2695", "1f469-1f3fd-2695"]  # man and woman
    for root in ("a", "b"):
        for name in names:
            write(tmp_path / root / f"{name}.png")

    def held_out(root, together):
        options = splits.HeldOut(together=together)
        return [
            {file.stem for file in folder.open_split(tmp_path / root, split, held_out=options).files}
            for split in ("train", "test")
        ]

    train, test = held_out("a", TOGETHER)
    assert len(test) == 6 and {*train, *test} == set(names)  # a tenth of 21 emoji, of three pictures each
    assert not {name.split("-")[0] for name in test} & {name.split("-")[0] for name in train}
    assert {"1f468-2695", "1f469-2695", "1f469-1f3fd-2695"} <= train or {"1f468-2695", "1f469-2695"} <= test
    assert held_out("b", TOGETHER) == [train, test]
    apart = held_out("a", "")[1]
    assert any(name.split("-")[0] in {other.split("-")[0] for other in held_out("a", "")[0]} for name in apart)


def test_what_leaves_nothing_apart_or_is_no_expression_is_said(tmp_path):
    for index in range(12):
        write(tmp_path / f"frame_{index}.png")
    with pytest.raises(UserError, match=r"data\.together='\[0-9\]\+' makes one of all 12 images in .*match less"):
        load(tmp_path, together="[0-9]+")
    with pytest.raises(UserError, match=r"data\.together='-\[0-9\]\$' matches no name in .*, such as 'frame_\d+'"):
        load(tmp_path, together="-[0-9]$")
    with pytest.raises(UserError, match=r"data\.together='\[0-9\]\$' does nothing with data\.unseen_classes"):
        load(tmp_path, together="[0-9]$", unseen_classes=True)
    with pytest.raises(UserError, match=r"data\.together='\[0-9' is no regular expression: unterminated"):
        load(tmp_path, together="[0-9")
    counts = load(tmp_path, together="[0-9]$").info["examples"]  # of `frame_` and `frame_1`
    assert sorted(counts.values()) == [2, 10]
