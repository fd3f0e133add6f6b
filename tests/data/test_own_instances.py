"""One's own masks and keypoints: those of pycocotools in batches, drawn by the program, every fault with its line."""

import json
import pickle

import box_folders
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco
from pycocotools.coco import COCO

from cvjax import data
from cvjax.data import box_files, boxed, coco_boxes, coco_entries, folder, segmentations
from cvjax.data.annotations import Annotations
from cvjax.errors import UserError
from cvjax.programs import annotations

COUNT = 12
NAMES = ("nose", "left_eye", "right_eye", "tail")
EXCHANGE = ((1, 2),)
READ = dict(masks="segmentation", keypoints=dict(exchange=EXCHANGE))
DETAILS = (coco_boxes.SEGMENTATION, coco_boxes.KEYPOINTS)


def segmentation(number, box, height, width):
    """Polygons, one or two, or run lengths, of an object in a box: each annotation has another kind."""
    x1, y1, x2, y2 = box
    across, down = (x1 + x2) / 2, (y1 + y2) / 2
    polygons = [[x1, y1, x2, y1 + 0.25, across, y2], [x1 + 0.5, y2 - 3, across, y2, x1, y2, x1, y2 - 2.5]]
    if number % 4 < 2:
        return polygons[: 1 + number % 4]
    mask = np.zeros((height, width), np.uint8, order="F")
    mask[int(down) : y2, x1 : int(across) + 1] = 1
    compressed = coco.encode(mask)
    if number % 4 == 3:
        return {"size": [height, width], "counts": compressed["counts"].decode()}
    return {"size": [height, width], "counts": segmentations.run_lengths(compressed["counts"].decode())}


def write(root, places=("train", "test")):
    """Writes folders whose `boxes.json` have masks and keypoints, an annotation a line from line 20 on."""
    box_folders.write(root, "COCO", places, COUNT)
    for place in places:

        def add(content):
            sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
            for number, one in enumerate(content["annotations"]):
                x, y, w, h = one["bbox"]
                size = sizes[one["image_id"]]
                kind = segmentation(number, (x, y, x + w, y + h), *size)
                joints = np.random.default_rng(number).integers((x, y, 0), (x + w, y + h, 3), (len(NAMES), 3))
                joints[joints[:, 2] == 0] = 0
                one.update(id=number + 1, segmentation=kind, iscrowd=number % 4 // 3, keypoints=joints.ravel().tolist())
            for category in content["categories"]:
                category.update(keypoints=NAMES, skeleton=[[1, 2], [1, 3], [1, 4], [1, 9], "x"])

        change(root / place, add)
    return root


def change(root, function):
    path = root / "boxes.json"
    content = json.loads(path.read_text())
    function(content)
    lists = [f'"{name}": [\n' + ",\n".join(map(json.dumps, entries)) + "\n]" for name, entries in content.items()]
    path.write_text("{" + ",\n".join(lists) + "}")


def settings(root, **changes):
    square = (dict(op="pad", padding=(0, 0)), dict(op="letterbox", size=(64, 64)))
    return {
        "folder": str(root),
        "batch": 4,
        "max_boxes": 4,
        "transforms": square,
        "eval_transforms": square,
        **READ,
        **changes,
    }


def messages(root, masks=True, joints=4):
    path, files = folder.open_root(root)
    return annotations.check(path, box_files.read(path, files, DETAILS), masks, joints)


def test_masks_and_keypoints_are_those_of_pycocotools(tmp_path):
    root = write(tmp_path)
    source = boxed.open_split(root, "test", annotations=Annotations.of({"max_boxes": 4, **READ}))
    oracle = COCO(str(root / "test" / "boxes.json"))
    found = 0
    for index, file in enumerate(source.files):
        example = source[index]
        written = oracle.loadAnns(oracle.getAnnIds(imgIds=[int(file.stem)]))
        assert example["masks"].shape == (len(written), *example["image"].shape[:2])
        for row, one in enumerate(written):
            np.testing.assert_array_equal(example["masks"][row], oracle.annToMask(one).astype(bool))
            joints = np.reshape(one["keypoints"], (-1, 3))
            np.testing.assert_array_equal(example["visibility"][row], joints[:, 2])
            seen = joints[:, 2] > 0  # COCO numbers pixels, whose middles they are
            np.testing.assert_array_equal(example["keypoints"][row, seen], joints[seen, :2] + 0.5)
            assert not example["keypoints"][row, ~seen].any()
            assert example["crowd"][row] == one["iscrowd"]
            found += example["masks"][row].any()
    assert found == sum(len(box_folders.example(index)[1]) for index in range(COUNT)) > 10
    assert messages(root) == ([], [])


def test_batches_move_and_pad_them_and_workers_agree(tmp_path):
    root = write(tmp_path)
    flip = (*settings(root)["transforms"], dict(op="flip", p=1.0))
    plain, mirrored = (next(data.load(settings(root, transforms=ops), seed=0).train()) for ops in (flip[:2], flip))
    assert mirrored["masks"].shape == (4, 4, 64, 64) and mirrored["keypoints"].shape == (4, 4, len(NAMES), 2)
    np.testing.assert_array_equal(mirrored["masks"], plain["masks"][..., ::-1])
    np.testing.assert_array_equal(mirrored["visibility"], plain["visibility"][..., [0, 2, 1, 3]])
    seen = mirrored["visibility"] > 0
    expected = plain["keypoints"][:, :, [0, 2, 1, 3]] * (-1, 1) + np.float32([64, 0])
    np.testing.assert_allclose(mirrored["keypoints"][seen], expected[seen], atol=1e-4)
    assert not mirrored["visibility"][~mirrored["mask"]].any() and not mirrored["masks"][~mirrored["mask"]].any()
    streams = [data.load(settings(root, in_memory=False, workers=count), seed=0).train() for count in (0, 1)]
    for key, value in next(streams[0]).items():
        np.testing.assert_array_equal(value, next(streams[1])[key] if key == "image" else value)


def test_only_what_is_asked_for_is_read_and_refused(tmp_path):
    root = write(tmp_path)
    change(root / "train", lambda content: content["annotations"][0].update(segmentation=[[1, 2, 3]], keypoints=[1]))
    assert "masks" not in next(data.load(settings(root, masks=None, keypoints=None), seed=0).train())
    assert messages(root, False, None) == ([], [])
    with pytest.raises(UserError, match=r"boxes.json:20, annotation 1: a polygon has 3 numbers"):
        data.check(settings(root, keypoints=None))
    with pytest.raises(UserError, match=r"boxes.json:20, annotation 1: keypoints has 1 numbers"):
        data.check(settings(root, masks=None))


RUNS = dict(size=[48, 64], counts=[0, 48 * 64])
FAULTS = {
    "no mask": (dict(segmentation=[]), "it has no segmentation"),
    "an odd polygon": (dict(segmentation=[[1, 2, 3, 4, 5, 6, 7]]), "a polygon has 7 numbers, .* come in pairs"),
    "two points": (dict(segmentation=[[1, 2, 3, 4, 5, 6], [1, 2, 3, 4]]), "a polygon has 2 points, and needs 3"),
    "no number": (dict(segmentation=[[1, 2, 3, 4, 5, "x"]]), "a polygon has what is no number: .*'x'"),
    "not a number": (dict(segmentation=[[1, 2, 3, 4, 5, float("nan")]]), "a polygon has what is no number: .*nan"),
    "a flat list": (dict(segmentation=[1, 2, 3, 4, 5, 6]), "is neither a list of polygons nor run lengths"),
    "far away": (
        dict(segmentation=[[2, 2, 140, 4, 75, 9]]),
        "points further outside the image of 64x48 pixels",
    ),
    "outside": (dict(segmentation=[[70, 2, 80, 4, 75, 9]]), "polygons are outside the image of 64x48 pixels"),
    "another size": (dict(segmentation={**RUNS, "size": [64, 48]}), r"of the size \[64, 48\], .* image is \[48, 64\]"),
    "run lengths too short": (
        dict(segmentation={**RUNS, "counts": [5, 6]}),
        "are of 11 pixels, and the image has 3072",
    ),
    "negative run lengths": (dict(segmentation={**RUNS, "counts": [-1, 3073]}), "run lengths cannot be read"),
    "nothing inside": (dict(segmentation={**RUNS, "counts": [3072]}), "run lengths have no pixel inside"),
    "a damaged text": (dict(segmentation={**RUNS, "counts": "0\x7f!"}), "run lengths cannot be read"),
    "a text cut off": (dict(segmentation={**RUNS, "counts": "`"}), "run lengths cannot be read"),
    "too few joints": (dict(keypoints=[1, 2, 2]), "keypoints has 3 numbers, and x, y and visibility of 4 are 12"),
    "joints that are none": (dict(keypoints={"nose": 1}), "keypoints has .*nose.* numbers"),
    "a visibility": (dict(keypoints=[*[0] * 11, 3]), "keypoint 3 has the visibility 3, and there are 0, 1 and 2"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_faults_are_named_by_file_and_line(tmp_path, fault):
    changes, message = FAULTS[fault]
    root = write(tmp_path)
    change(root / "train", lambda content: content["annotations"][0].update(changes))  # of an image of 64x48
    (refused,), _ = messages(root)
    assert refused.startswith("train/boxes.json:20, annotation 1: ")
    with pytest.raises(UserError, match=f"train/boxes.json:20, annotation 1: .*{message}"):
        data.check(settings(root))
    data.load(settings(root, on_corrupt="skip"), seed=0)


def test_joints_outside_are_noted_and_count_as_not_labelled(tmp_path):
    root = write(tmp_path)
    joints = [3, 4, 2, 64, 4, 2, 0, 0, 0, 63, 47, 1]
    change(root / "train", lambda content: content["annotations"][0].update(keypoints=joints))
    place = "train/boxes.json:20, annotation 1: "
    note = f"{place}keypoint 1 at 64, 4 is outside the image of 64x48 pixels, and counts as not labelled"
    assert messages(root) == ([], [note])
    source = boxed.open_split(root, "train", annotations=Annotations.of({"max_boxes": 4, **READ}))
    (index,) = (place for place, file in enumerate(source.files) if file.stem == "1")
    assert source[index]["visibility"][0].tolist() == [2, 0, 0, 1]


def _other_names(content):
    content["categories"][1].update(keypoints=["a", "b"])


def _no_names(content):
    for category in content["categories"]:
        del category["keypoints"]


def _nothing(content):
    _no_names(content)
    for one in content["annotations"]:
        del one["keypoints"]


@pytest.mark.parametrize(
    ("function", "changes", "message"),
    [
        (None, dict(masks="mask"), r"data.masks='mask': the masks of a folder .* data.masks='segmentation' reads"),
        (None, dict(max_boxes=None, keypoints=None), r"masks belong to boxes, so set data.max_boxes"),
        (None, dict(max_boxes=None, masks=None), r"data.keypoints belong to boxes, so set data.max_boxes"),
        (
            None,
            dict(keypoints=dict(feature="joints")),
            r"data.keypoints.feature='joints': those of a folder are",
        ),
        (
            None,
            dict(keypoints=dict(normalised=True)),
            r"keypoints.normalised=True: those of COCO's json are in pixels",
        ),
        (None, dict(keypoints={}), r"exchange names joint 16, but there are 4.*set data.keypoints.exchange=\(\(1, 2\)"),
        (None, dict(points=dict(feature="x")), r"data.points is for datasets by name.*see data.keypoints"),
        (_other_names, {}, r"has classes with 4 and 2 keypoints, or of other names"),
        (_nothing, {}, r"data.keypoints: .* has no keypoints, which COCO's json may have"),
    ],
)
def test_a_wrong_setting_is_named_with_what_would_be_right(tmp_path, function, changes, message):
    root = write(tmp_path, ("train",) if function else ("train", "test"))
    if function:
        change(root / "train", function)
    with pytest.raises(UserError, match=message):
        data.check(settings(root, **changes))


def test_joints_without_names_are_counted(tmp_path):
    root = write(tmp_path)
    for place in ("train", "test"):
        change(root / place, _no_names)
    assert next(data.load(settings(root), seed=0).train())["keypoints"].shape == (4, 4, 4, 2)


def test_of_cocos_own_files_those_with_joints_come_first_where_joints_are_read(tmp_path):
    root = write(tmp_path)
    for place in ("train", "test"):
        content = json.loads((root / place / "boxes.json").read_text())
        people_only = [one for one in content["annotations"] if one["category_id"] == 3]
        named = {**content, "categories": content["categories"][:1], "annotations": people_only}
        (root / place / "person_keypoints.json").write_text(json.dumps(named))
        change(root / place, _no_names)
    with_joints = boxed.open_split(root, "train", annotations=Annotations.of({"max_boxes": 4, **READ}))
    without = boxed.open_split(root, "train")
    assert with_joints.classes == ("cat",) and without.classes == ("cat", "dog")
    assert sum(len(one.boxes) for one in with_joints.pictures) < sum(len(one.boxes) for one in without.pictures)


def test_masks_of_yolos_polygons(tmp_path):
    root = box_folders.write(tmp_path, "YOLO")
    for file in root.glob("*.txt"):
        file.write_text("1 .25 .5 .75 .25 .5 1\n")
    source = boxed.open_split(root, "train", annotations=Annotations.of({"max_boxes": 1, "masks": "segmentation"}))
    example = source[0]
    height, width = example["image"].shape[:2]
    polygon = [0.25 * width, 0.5 * height, 0.75 * width, 0.25 * height, 0.5 * width, 1.0 * height]
    np.testing.assert_array_equal(example["masks"][0], segmentations.rasterise([polygon], height, width))
    assert example["masks"].sum() > 100
    with pytest.raises(UserError, match=r"VOC's xml in .* has boxes alone"):
        data.check(settings(box_folders.write(tmp_path / "voc", "VOC"), keypoints=None))


def test_run_lengths_are_those_that_pycocotools_compresses():
    generator = np.random.default_rng(0)
    for _ in range(50):
        mask = generator.random(generator.integers(1, 90, 2)) < generator.random()
        changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.ravel(order="F").astype(int)])))
        ends = np.concatenate([[0], changes, [mask.size]])
        text = coco.encode(np.asfortranarray(mask.astype(np.uint8)))["counts"].decode()
        assert segmentations.run_lengths(text) == np.diff(ends).tolist()
    assert segmentations.run_lengths("") == []


def test_the_program_draws_masks_and_skeletons(tmp_path, capsys):
    root, sheet = write(tmp_path / "set"), tmp_path / "sheet.png"
    assert annotations.main([str(root), f"--output={sheet}"]) == 0
    printed = capsys.readouterr().out
    assert "36 boxes, 36 with masks, 36 with 4 keypoints" in printed
    drawn = np.asarray(Image.open(sheet).convert("RGB"), np.int32)
    assert annotations.main([str(root), f"--output={sheet}", "--config=configs/own_boxes.py"]) == 0
    assert "with masks" not in capsys.readouterr().out
    change(root / "train", lambda content: content["annotations"][1].update(segmentation=[]))
    assert annotations.main([str(root), f"--output={sheet}"]) == 1
    assert "train/boxes.json:21, annotation 2: it has no segmentation" in capsys.readouterr().out
    assert len(np.unique(drawn.reshape(-1, 3), axis=0)) > 1000


def test_lines_are_not_looked_for_where_nothing_is_wrong(tmp_path, monkeypatch):
    root = write(tmp_path)
    monkeypatch.setattr(coco_entries, "_entries", None)  # it takes longer than all the rest
    data.check(settings(root))
    assert messages(root) == ([], [])


def test_lines_are_found_when_a_message_needs_them(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text('{"images": [], "annotations": [{"id": 1},\n 7,\n {"id": 2},],\n "categories": []}')
    assert coco_entries.read(path)["annotations"] == [{"id": 1}, {"id": 2}]  # a comma too many is forgiven
    place = coco_entries.Place(coco_entries.Lines(path, "boxes.json"), "annotations", 1, ", annotation 2")
    assert str(place) == "boxes.json:3, annotation 2"
    copied = pickle.loads(pickle.dumps(place))
    assert str(copied) == str(place)
    path.unlink()
    assert str(place) == "boxes.json:3, annotation 2"  # it was read before
    assert str(pickle.loads(pickle.dumps(place))) == "boxes.json, annotation 2"
