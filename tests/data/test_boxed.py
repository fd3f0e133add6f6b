"""One's own boxes: the same batches from all three formats, and every fault named by file and line."""

import json

import box_folders
import numpy as np
import pytest
from PIL import Image

from cvjax import config, data
from cvjax.data import box_files, boxed, folder
from cvjax.errors import UserError
from cvjax.programs import annotations

KINDS = ("COCO", "VOC", "YOLO")
TRANSFORMS = (
    dict(op="letterbox", size=(64, 64)),
    dict(op="random_scale"),
    dict(op="flip"),
    dict(op="mosaic"),
)


def settings(root, **changes):
    return {
        "folder": str(root),
        "batch": 4,
        "max_boxes": 16,
        "transforms": TRANSFORMS,
        "eval_transforms": TRANSFORMS[:1],
        **changes,
    }


def messages(root):
    path, files = folder.open_root(root)
    return annotations.check(path, box_files.read(path, files))


def test_all_formats_give_the_same_batches(tmp_path):
    loaded = [data.load(settings(box_folders.write(tmp_path / kind, kind)), seed=3) for kind in KINDS]
    assert {one.info["classes"] for one in loaded} == {box_folders.CLASSES}
    assert all(one.info["examples"] == {"train": 11, "test": 1} for one in loaded)
    streams = [one.train() for one in loaded]
    for _ in range(4):
        first, *others = [next(stream) for stream in streams]
        assert first["mask"].any()
        for other in others:
            assert first.keys() == other.keys()
            for key in first:
                np.testing.assert_array_equal(first[key], other[key])


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_and_classes_are_those_that_were_written(tmp_path, kind):
    root = box_folders.write(tmp_path, kind, ("train", "valid"))
    source = boxed.open_split(root, "val")
    assert len(source) == 12 and source.most_boxes == 3
    for index, file in enumerate(source.files):
        pixels, boxes = box_folders.example(int(file.stem))
        found = source[index]
        np.testing.assert_array_equal(found["image"], pixels)
        np.testing.assert_array_equal(found["boxes"], np.array([box[1:] for box in boxes]).reshape(-1, 4))
        assert [box_folders.CLASSES[label] for label in found["labels"]] == [box[0] for box in boxes]
        np.testing.assert_array_equal(found["area"], [(x2 - x1) * (y2 - y1) for _, x1, y1, x2, y2 in boxes])
    assert messages(root) == ([], [])
    data.check(settings(root, eval_split="val"))
    with pytest.raises(UserError, match=r"fullest image of .* has 3 boxes.*data.max_boxes=2 has to be"):
        data.check(settings(root, eval_split="val", max_boxes=2, transforms=TRANSFORMS[:1]))


def test_layouts_of_well_known_tools(tmp_path):
    """COCO's own, Pascal VOC's own, and Ultralytics' folders of images and labels."""
    coco = box_folders.write(tmp_path / "coco", "COCO", ("train2017", "val2017"))
    (coco / "annotations").mkdir()
    for split in ("train", "val"):
        (coco / f"{split}2017" / "boxes.json").rename(coco / "annotations" / f"instances_{split}2017.json")
    voc = box_folders.write(tmp_path / "voc", "VOC", ("JPEGImages",))
    (voc / "Annotations").mkdir()
    for file in (voc / "JPEGImages").glob("*.xml"):
        file.rename(voc / "Annotations" / file.name)
    yolo = box_folders.write(tmp_path / "yolo", "YOLO", ("images/train", "images/val"))
    for file in yolo.glob("images/*/*.txt"):
        target = yolo / "labels" / file.parent.name / file.name
        target.parent.mkdir(parents=True, exist_ok=True)
        file.rename(target)
    (yolo / "README.txt").write_text("These are cats and dogs.")
    for root, split, count in ((coco, "val", 12), (voc, "test", 1), (yolo, "val", 12)):
        assert messages(root) == ([], [])
        source = boxed.open_split(root, split)
        assert len(source) == count
        for picture in source.pictures:
            assert len(picture.boxes) == len(box_folders.example(int(picture.file.stem))[1])


def replace(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))


def coco(root, change):
    """Changes the annotations of a COCO file, which stand a line each from line 20 on."""
    path = root / "boxes.json"
    content = json.loads(path.read_text())
    change(content)
    lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]" for name, entries in content.items()]
    path.write_text("{" + ",\n".join(lists) + "}")


COCO_FAULTS = {
    "a missing image": (
        lambda c: c["images"][1].update(file_name="gone.png"),
        r"boxes\.json:3: the image 'gone.png' is",
    ),
    "an unknown class": (
        lambda c: c["annotations"][0].update(category_id=9),
        r"json:20, annotation 0: category_id 9 is no",
    ),
    "an empty class": (lambda c: c["categories"][0].update(name=""), r"category_id 3 is no category with a name"),
    "an unknown image": (lambda c: c["annotations"][1].update(image_id=99), r"json:21, annotation 1: its image_id 99"),
    "no area": (lambda c: c["annotations"][2].update(bbox=[3, 4, 0, 9]), r"json:22, .*the box 3, 4, 3, 13 has no area"),
    "order": (lambda c: c["annotations"][2].update(bbox=[9, 4, -5, 9]), r"corners 9, 4, 4, 13 are in the wrong order"),
    "outside": (lambda c: c["annotations"][0].update(bbox=[64, 4, 5, 9]), r"box 64, 4, 69, 13 is outside the .* 64x48"),
    "a number too large": (
        lambda c: c["annotations"][0].update(bbox=[1, 2, 3, 10**400]),
        r"json:20, .* is not \[x, y, width",
    ),
    "no numbers": (lambda c: c["annotations"][0].update(bbox=[1, 2, 3]), r"bbox=\[1, 2, 3\] is not \[x, y, width"),
    "an id of two images": (
        lambda c: c["images"][0].update(id=2),
        r"json:2: its id 2 is that of another image too: train/boxes.json:4",
    ),
    "an id of more images": (
        lambda c: [c["images"][index].update(id=0) for index in (4, 8)],  # none of them has boxes
        r"json:2: its id 0 is that of another image too: train/boxes.json:6\. python",
    ),
    "an id that is none": (lambda c: c["images"][0].update(id=[1]), r"json:2: the id of an image is a number, .*\[1\]"),
    "an image_id that is none": (lambda c: c["annotations"][1].update(image_id=[]), r"its image_id \[\] is in no"),
    "a category_id that is none": (lambda c: c["annotations"][0].update(category_id=[3]), r"category_id \[3\] is no"),
    "an image twice": (
        lambda c: c["images"].append({**c["images"][1], "id": 99}),
        r"1\.png is annotated a second time, after train/boxes.json:3",
    ),
    "another size": (lambda c: c["images"][1].update(width=640), r"json:3: the image is 64x48 .* annotated at 640x48"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_faults_of_coco_are_named_by_file_and_line(tmp_path, fault):
    change, message = COCO_FAULTS[fault]
    coco(box_folders.write(tmp_path, "COCO", ("train", "test")) / "train", change)
    refused, _ = messages(tmp_path)
    assert len(refused) >= 1
    with pytest.raises(UserError, match=message):
        data.check(settings(tmp_path))
    loaded = data.load(settings(tmp_path, on_corrupt="skip"), seed=0)
    assert 0 < loaded.info["examples"]["train"] <= 12


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda c: c["categories"].append(dict(id=3, name="fox")), r"two categories with one id, 3: .*'cat' and 'fox'"),
        (
            lambda c: c["categories"][0].update(id=None),
            r"json:16: the id of a category is a number, and not None",
        ),
        (
            lambda c: c["categories"][1].update(id=[7]),
            r"json:17: the id of a category is a number, and not \[7\]",
        ),
        (
            lambda c: [image.update(file_name=f"x{image['file_name']}") for image in c["images"]],
            r"COCO annotations are of no image that is there\. boxes.json:2: the image 'x0.png' is missing; .*\.\.\.",
        ),
        (lambda c: c.update(images=[], annotations=[]), r"its COCO annotations are of no image that is there\.$"),
    ],
)
def test_faults_of_a_whole_coco_file(tmp_path, change, message):
    coco(box_folders.write(tmp_path, "COCO"), change)
    with pytest.raises(UserError, match=message):
        data.check(settings(tmp_path))


def test_cocos_own_folder_of_annotations(tmp_path):
    """The boxes of `person_keypoints` are those of `instances` again; `captions` have none."""
    root = box_folders.write(tmp_path, "COCO", ("train2017", "val2017"))
    (root / "annotations").mkdir()
    for split in ("train2017", "val2017"):
        content = json.loads((root / split / "boxes.json").read_text())
        (root / split / "boxes.json").unlink()
        people = {**content, "categories": [{**content["categories"][0], "keypoints": ["nose"]}]}
        people["annotations"] = [one for one in content["annotations"] if one["category_id"] == 3]
        captions = {"images": content["images"], "annotations": [{"id": 1, "image_id": 1, "caption": "A cat."}]}
        for name, written in {"captions": captions, "instances": content, "person_keypoints": people}.items():
            (root / "annotations" / f"{name}_{split}.json").write_text(json.dumps(written))
    assert messages(root) == ([], [])
    assert [len(boxed.open_split(root, split)) for split in ("train", "val")] == [12, 12]
    for file in root.glob("annotations/instances*"):
        file.unlink()
    assert [len(boxed.open_split(root, split)) for split in ("train", "val")] == [12, 12]


def encode(path, encoding, text=None):
    path.write_bytes((path.read_text() if text is None else text).encode(encoding))


def test_texts_in_the_encodings_that_editors_write(tmp_path):
    coco, voc, yolo = (box_folders.write(tmp_path / kind, kind) for kind in KINDS)
    wanted = [len(picture.boxes) for picture in boxed.open_split(yolo, "train").pictures]
    encode(coco / "boxes.json", "utf-8-sig")
    for file in voc.glob("*.xml"):
        encode(file, "gb2312", f'<?xml version="1.0" encoding="gb2312"?>\n{file.read_text().replace("cat", "猫")}')
    (yolo / "data.yaml").unlink()
    encode(yolo / "classes.txt", "utf-8-sig", "cat\ndog\n")
    encode(yolo / "1.txt", "utf-16")
    for root, names in ((coco, ("cat", "dog")), (voc, ("dog", "猫")), (yolo, ("cat", "dog"))):
        assert messages(root) == ([], [])
        source = boxed.open_split(root, "train")
        assert source.classes == names
        assert [len(picture.boxes) for picture in source.pictures] == wanted
    encode(yolo / "classes.txt", "latin-1", "cat\nchien café\n")
    with pytest.raises(UserError, match=r"classes.txt is not UTF-8 in line 2: save it in that encoding"):
        boxed.open_split(yolo, "train")
    encode(coco / "boxes.json", "latin-1", (coco / "boxes.json").read_text("utf-8-sig").replace("dog", "café"))
    with pytest.raises(UserError, match=r"boxes.json is not UTF-8 in line 1[5-9]"):
        boxed.open_split(coco, "train")
    encode(voc / "1.xml", "utf-8", '<?xml version="1.0" encoding="klingon"?>\n<annotation/>')
    assert messages(voc)[0] == ["1.xml:1: it cannot be read as xml: unknown encoding: klingon"]


def test_names_of_yolo_are_those_of_the_yaml_or_refused(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    for names in ('{"0": "no", "1": "yes"}', "{1: yes, 0: no}", "[no, yes]"):
        (root / "data.yaml").write_text(f"names: {names}\n")
        assert boxed.open_split(root, "train").classes == ("no", "yes")
    (root / "data.yaml").write_text("names: {0: cat, 2: dog}\n")
    with pytest.raises(UserError, match=r"the keys of `names` are 0, 2, and have to be 0, 1, 2"):
        boxed.open_split(root, "train")
    (root / "data.yaml").unlink()
    (root / "1.txt").write_text("1000000000 .5 .5 .1 .1\n")
    assert boxed.open_split(root, "train").classes == ("0", "1")
    assert messages(root)[0] == ["1.txt:1: the class 1000000000 is beyond 9999, the most without a file of names"]


def test_labels_of_yolo_that_are_all_of_other_images_are_named(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    for file in root.glob("*.txt"):
        file.rename(root / f"x{file.name}")
    refused, _ = messages(root)
    assert "x1.txt:1: there is no image 'x1' for it" in refused
    (root / "data.yaml").write_text("names: {1: no, 3: names of YOLO}\n")  # which are then not read
    box_folders.write_coco(root, {f"{index}.png": box_folders.example(index) for index in range(12)})
    for file in root.glob("x*.txt"):
        file.write_text("Notes.")
    assert messages(root) == ([], [])


def test_faults_of_voc_and_yolo_are_named_by_file_and_line(tmp_path):
    voc = box_folders.write(tmp_path / "voc", "VOC", ("train", "test")) / "train"
    replace(voc / "1.xml", "<name>", "<name></name><nom>")
    replace(voc / "1.xml", "</name><diff", "</nom><diff")
    replace(voc / "2.xml", "<xmin>", "<xmin>x")
    (voc / "3.xml").write_text("<annotation>\n<object>")
    (voc / "6.png").unlink()
    refused, noted = messages(tmp_path / "voc")
    for message in (
        "train/1.xml:4: it has no name of a class",
        "train/2.xml:4: its bndbox lacks a number xmin, ymin, xmax or ymax",
        "train/3.xml:2: it cannot be read as xml: no element found: line 2, column 8",
        "train/6.xml:1: the image '6.png' is missing",
    ):
        assert message in refused
    assert len(refused) == 4 and noted == ["train/3.png is not annotated, and left out"]
    yolo = box_folders.write(tmp_path / "yolo", "YOLO", ("train", "test")) / "train"
    (yolo / "1.txt").write_text("2 .5 .5 .1 .1\n\n0 .5 .5 .1\n0 .5 .5 .1 .1\n0 .5 .5 .1 .1\n1 .9 .5 .4 .1\n")
    (yolo / "lost.txt").write_text("0 .5 .5 .1 .1\n")
    refused, noted = messages(tmp_path / "yolo")
    assert refused == [
        "train/lost.txt:1: there is no image 'lost' for it",
        "train/1.txt:1: there is no class 2: names has 2, numbered from 0",
        "train/1.txt:3: '0 .5 .5 .1' is not a class and x, y, width, height, or a class and a polygon",
    ]
    assert noted == [
        "train/1.txt:5: the same box as at train/1.txt:4",
        "train/1.txt:6: the box 44.8, 21.6, 70.4, 26.4 is partly outside the image of 64x48 pixels",
    ]


def test_classes_without_boxes_and_polygons(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    (root / "data.yaml").write_text("names: {0: cat, 1: dog, 2: fox}\n")
    (root / "0.txt").write_text("1 .25 .5 .75 .25 .5 1\n")
    assert messages(root) == ([], ["the class 'fox' has no boxes"])
    (picture,) = (one for one in box_files.read(root, folder.list_images(root)).pictures if one.file.stem == "0")
    assert boxed.in_pixels(picture.boxes[0], (40, 64)) == (16, 10, 48, 40)


def test_what_is_not_for_folders_with_boxes(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    with pytest.raises(UserError, match=r"data.per_class=2: the examples of .* have no labels"):
        data.check(settings(root, per_class=2))
    with pytest.raises(UserError, match="boxes belong to whole files"):
        data.check(settings(root, images={"target": "right"}))
    box_folders.write_coco(root, {name: box_folders.example(0) for name in ("0.png",)})
    with pytest.raises(UserError, match="boxes in several formats, COCO and YOLO"):
        data.check(settings(root))
    for file in root.glob("*.txt"):
        file.unlink()
    box_folders.write_voc(root, {"lost.png": box_folders.example(1)})
    with pytest.raises(UserError, match="boxes in several formats, COCO and VOC"):
        data.check(settings(root))
    plain = tmp_path / "plain"
    plain.mkdir()
    for index in range(10):
        Image.new("RGB", (8, 8)).save(plain / f"{index}.png")
    with pytest.raises(UserError, match=r"data.max_boxes asks for boxes, and .*plain has none"):
        data.check(settings(plain))


def test_the_share_that_is_held_out_and_its_seed(tmp_path):
    root = box_folders.write(tmp_path, "YOLO", count=20)
    tests = {}
    for seed in (0, 1, 2):
        loaded = data.load(settings(root, held_out=0.25, split_seed=seed), seed=0)
        assert loaded.info["examples"] == {"train": 15, "test": 5}
        chosen = boxed.open_split(root, "test", held_out=boxed.HeldOut(0.25, seed))
        tests[seed] = {file.name for file in chosen.files}
    assert tests[0] != tests[1] != tests[2]


def test_the_config_for_own_boxes_takes_a_folder(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    experiment = config.load("configs/own_boxes.py")
    with pytest.raises(UserError, match=r"set data.name=.* or data.folder=.*neither is set"):
        config.check(experiment)
    experiment.data.folder = str(root)
    with pytest.raises(UserError, match=r"has 2 classes \(cat, dog\): set --config.recipe.classes=2"):
        config.check(experiment)
    experiment.recipe.classes = 2
    config.check(experiment)


def test_the_program_checks_and_draws(tmp_path, capsys):
    root = box_folders.write(tmp_path / "set", "VOC", ("train", "test"))
    sheet = tmp_path / "sheet.png"
    assert annotations.main([str(root), f"--output={sheet}", "--config=configs/own_boxes.py:smoke"]) == 0
    printed = capsys.readouterr().out
    assert "VOC: 24 images (12 test, 12 train), 36 boxes" in printed and "cat" in printed
    with Image.open(sheet) as image:
        pixels = np.asarray(image.convert("RGB"))
    assert min(pixels.shape[:2]) > 400 and len(np.unique(pixels.reshape(-1, 3), axis=0)) > 100
    assert f"{sheet} shows 12 training images after the transforms" in printed
    (root / "train" / "5.png").unlink()
    assert annotations.main([str(root), f"--output={tmp_path / 'new' / 'sheet.png'}"]) == 1
    assert (tmp_path / "new" / "sheet.png").is_file()
    assert "train/5.xml:1: the image '5.png' is missing" in capsys.readouterr().out
    for file in root.rglob("*.png"):
        file.unlink()
    Image.new("RGB", (8, 8)).save(root / "train" / "other.png")
    assert annotations.main([str(root), f"--output={sheet}"]) == 1
    printed = capsys.readouterr().out
    assert "VOC: 24 images (no splits)" in printed and "no image that is there" in printed
    assert "test/5.xml:1: the image '5.png' is missing" in printed


@pytest.mark.parametrize(
    ("output", "message"),
    [
        ("sheet.png", r"--output=sheet.png is in .*set, whose images .* such as --output=.*/sheet.png"),
        ("train/sheet.png", r"--output=train/sheet.png is in "),
        ("../sheet.foo", r"--output=\.\./sheet.foo: the sheet is a PNG, such as sheet.png"),
    ],
)
def test_the_sheet_is_a_png_and_no_image_of_the_folder(tmp_path, monkeypatch, output, message):
    root = box_folders.write(tmp_path / "set", "YOLO")
    monkeypatch.chdir(root)
    with pytest.raises(UserError, match=message):
        annotations.main([".", f"--output={output}"])
    assert len(folder.list_images(tmp_path)) == 12


def test_the_sheet_lies_beside_the_folder_that_one_is_in(tmp_path, monkeypatch):
    root = box_folders.write(tmp_path / "set", "YOLO")
    monkeypatch.chdir(root)
    assert annotations.main(["."]) == 0
    assert (tmp_path / "annotations.png").is_file() and len(folder.list_images(root)) == 12
