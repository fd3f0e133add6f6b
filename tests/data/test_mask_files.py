"""Masks of a user's folder: the numbers that a file stores, colours by a table, and COCO's polygons."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO

from cvjax import config, data
from cvjax.data import segmentations
from cvjax.errors import UserError

SIZE = (6, 8)
NAMES = ("background", "cat", "dog")
COLOURS = np.array([[0, 0, 0], [200, 30, 0], [0, 30, 200], [255, 255, 255]], np.uint8)  # the last is void


def numbers(index):
    """Classes 0 to 2, and 3 for void."""
    return np.random.default_rng(index).integers(4, size=SIZE).astype(np.uint8)


def expected(index):
    return np.where(numbers(index) == 3, 255, numbers(index))


def paletted(index):
    """A PNG whose palette shows every number in the same colour: only the numbers tell classes apart."""
    image = Image.fromarray(np.where(numbers(index) == 3, 255, numbers(index)).astype(np.uint8), "P")
    image.putpalette([90, 90, 90] * 256)
    return image


def grey(index):
    return Image.fromarray(np.where(numbers(index) == 3, 255, numbers(index)).astype(np.uint8))


def deep(index):
    return Image.fromarray(np.where(numbers(index) == 3, 255, numbers(index)).astype(np.uint16))


def coloured(index):
    return Image.fromarray(COLOURS[numbers(index)])


def write(root, mask, count=4, suffix=".png"):
    for split in ("train", "test"):
        for index in range(count):
            for folder, image in {"photos": Image.new("RGB", SIZE[::-1], (index, 0, 0)), "masks": mask(index)}.items():
                path = root / folder / split / f"{index}{suffix if folder == 'masks' else '.png'}"
                path.parent.mkdir(parents=True, exist_ok=True)
                image.save(path)


def load(root, asked, **settings):
    chosen = {"folder": str(root / "photos"), "batch": 4, "class_maps": {"class_map": asked}, **settings}
    names = data.check(chosen)
    opened = data.load(chosen, seed=0)
    assert names == opened.info["classes"]
    return opened


@pytest.mark.parametrize("mask", [paletted, grey, deep])
def test_numbers_are_those_of_the_file(tmp_path, mask):
    write(tmp_path, mask)
    (tmp_path / "masks/labels.txt").write_text("\n".join(NAMES) + "\n", encoding="utf-8-sig")
    opened = load(tmp_path, str(tmp_path / "masks"))
    assert opened.info["classes"] == NAMES
    batch = next(opened.evaluate())
    np.testing.assert_array_equal(batch["class_map"], np.stack([expected(index) for index in range(4)]))


TABLES = {
    "colours.json": json.dumps({**dict(zip(NAMES, COLOURS.tolist(), strict=False)), "void": [255, 255, 255]}),
    "labels.txt": "background 0 0 0\ncat 200 30 0\ndog 0 30 200\nvoid 255 255 255\n",
}


@pytest.mark.parametrize("table", TABLES)
def test_colours_are_classes_by_a_table_beside_masks_or_images(tmp_path, table):
    write(tmp_path, coloured, suffix=".bmp")
    (tmp_path / ("masks" if table == "labels.txt" else "photos") / table).write_text(TABLES[table])
    opened = load(tmp_path, str(tmp_path / "masks"))
    assert opened.info["classes"] == NAMES
    batch = next(opened.evaluate())
    np.testing.assert_array_equal(batch["class_map"], np.stack([expected(index) for index in range(4)]))


def test_masks_move_with_their_images(tmp_path):
    write(tmp_path, lambda index: Image.new("L", SIZE[::-1], index % 3))
    asked = dict(source=str(tmp_path / "masks"), classes={name: index for index, name in enumerate(NAMES)})
    ops = [dict(op="random_scale_crop", size=(7, 7), value=1.0), dict(op="flip")]
    for in_memory in (True, False):
        batch = next(load(tmp_path, asked, transforms=ops, in_memory=in_memory).train())
        red = np.round(batch["image"][..., 0] * 255)
        np.testing.assert_array_equal(batch["class_map"], np.where(red == 255, 255, red % 3))


def test_a_value_without_a_class_is_named_with_its_file(tmp_path):
    write(tmp_path, lambda index: Image.fromarray(np.where(np.eye(6, 8, dtype=bool) & (index == 2), 7, 1).astype("u1")))
    asked = dict(source=str(tmp_path / "masks"), classes={"a": 0, "b": 1})
    with pytest.raises(
        UserError, match=r"masks/t\w+/2.png: no class has the value 7 in 6 pixels; the table has 0 to 1, 255"
    ):
        list(load(tmp_path, asked).evaluate())
    kept = load(tmp_path, asked, on_corrupt="skip")
    assert kept.info["examples"] == {"train": 3, "test": 3}


def test_mistakes_are_named(tmp_path):
    write(tmp_path, paletted)
    masks = str(tmp_path / "masks")
    with pytest.raises(UserError, match=r"no table says .*labels.txt, classes.json, colours.json.*`classes`"):
        load(tmp_path, masks)
    with pytest.raises(UserError, match=r"0.png holds numbers, and its table of classes has colours"):
        next(load(tmp_path, dict(source=masks, colours={"a": (0, 0, 0)})).evaluate())
    (tmp_path / "masks/classes.json").write_text('{"a": 0, "b": [1, 2], "void": 255}')
    assert load(tmp_path, masks).info["classes"] == ("a", "b")
    Image.new("L", (8, 7)).save(tmp_path / "masks/test/1.png")
    with pytest.raises(UserError, match=r"photos/test/1.png is 6x8, and .*masks/test/1.png, .* 7x8"):
        load(tmp_path, masks)
    (tmp_path / "masks/test/1.png").unlink()
    with pytest.raises(UserError, match=r"data.class_maps.class_map: .*1.png needs one counterpart"):
        load(tmp_path, masks)


def test_a_development_kit_of_voc_has_its_own_splits(tmp_path):
    root = tmp_path / "VOC2012"
    for part in ("JPEGImages", "SegmentationClass", "ImageSets/Segmentation"):
        (root / part).mkdir(parents=True)
    for index in range(5):
        Image.new("RGB", SIZE[::-1]).save(root / f"JPEGImages/{index}.jpg")
    for split, chosen in {"train": (0, 3), "val": (1,)}.items():
        (root / f"ImageSets/Segmentation/{split}.txt").write_text("".join(f"{index}\n" for index in chosen))
        for index in chosen:
            Image.fromarray(np.full(SIZE, 20 - index, np.uint8)).save(root / f"SegmentationClass/{index}.png")
    asked = {"class_map": dict(source=str(root / "SegmentationClass"), classes="voc")}
    chosen = {"folder": str(root), "eval_split": "val", "batch": 1, "class_maps": asked}
    opened = data.load(chosen, seed=0)
    assert opened.info["examples"] == {"train": 2, "val": 1} and opened.info["classes"][-1] == "tvmonitor"
    assert (next(opened.evaluate())["class_map"] == 19).all()


SQUARE = [2.0, 1.0, 7.0, 1.0, 7.0, 6.0, 2.0, 6.0]  # of side 5


def annotate(path, split="train"):
    """Objects in COCO's format: polygons, run lengths of both kinds, some of which overlap."""
    images = [{"id": 10 + i, "file_name": f"{split}/{i}.png", "height": 12, "width": 16} for i in range(3)]
    triangle = [8.3, 2.2, 15.1, 3.9, 9.7, 10.5]
    runs = {"size": [12, 16], "counts": [26, 6, 6, 6, 148]}
    objects = [(10, 7, [SQUARE]), (10, 3, [triangle, [0, 8, 4, 8, 4, 11.5]]), (11, 7, runs), (11, 3, [SQUARE])]
    objects += [(11, 3, [[3.0, 2.0, 9.0, 2.0, 9.0, 5.0]])]
    annotations = [
        {"id": row, "image_id": image, "category_id": category, "segmentation": segmentation, "iscrowd": 0}
        for row, (image, category, segmentation) in enumerate(objects)
    ]
    categories = [{"id": 7, "name": "dog"}, {"id": 3, "name": "cat"}]
    path.write_text(json.dumps({"images": images, "annotations": annotations, "categories": categories}))


def test_a_square_of_side_5_is_25_pixels():
    inside = segmentations.rasterise([SQUARE], 12, 16)
    expected = np.zeros((12, 16), bool)
    expected[1:6, 2:7] = True
    np.testing.assert_array_equal(inside, expected)


def test_objects_are_drawn_as_coco_draws_them(tmp_path):
    for split in ("train", "test"):
        (tmp_path / "photos" / split).mkdir(parents=True)
        for index in range(3):
            Image.new("RGB", (16, 12)).save(tmp_path / f"photos/{split}/{index}.png")
    path = tmp_path / "photos/objects.json"
    annotate(path, "test")
    with pytest.raises(UserError, match=r"objects.json has no image 'train/0.png'"):
        load(tmp_path, str(path))
    opened = load(tmp_path, str(path), train_split="test")
    assert opened.info["classes"] == ("background", "cat", "dog")
    found = next(opened.evaluate())["class_map"]
    reference = COCO(str(path))
    for row in range(3):
        masks = [(reference.annToMask(one) > 0, one["category_id"]) for one in reference.imgToAnns[10 + row]]
        cat, dog = (
            np.any([mask for mask, label in masks if label == kind] or [np.zeros((12, 16))], 0) for kind in (3, 7)
        )
        np.testing.assert_array_equal(found[row], np.select([cat & dog, cat, dog], [255, 1, 2], 0))
    assert (found[1] == 255).any() and not found[2].any()


def test_damaged_objects_are_named(tmp_path):
    (tmp_path / "photos/test").mkdir(parents=True)
    Image.new("RGB", (16, 12)).save(tmp_path / "photos/test/0.png")
    path = tmp_path / "objects.json"
    for segmentation, fault in {
        "[[1, 1, 5, 5]]": r"annotation 4 cannot be drawn: a polygon has 2 points, and needs 3",
        '{"size": [9, 16], "counts": [144]}': r"annotation 4 .*of the size \[9, 16\], and the image is \[12, 16\]",
    }.items():
        path.write_text(
            '{"images": [{"id": 1, "file_name": "0.png", "height": 12, "width": 16}], "categories": [{"id": 1, "name": '
            '"a"}], "annotations": [{"id": 4, "image_id": 1, "category_id": 1, "segmentation": ' + segmentation + "}]}"
        )
        with pytest.raises(UserError, match=fault):
            next(load(tmp_path, str(path), train_split="test").evaluate())
    sound = json.loads(path.read_text()) | {"annotations": []}
    for kind, other, fault in (
        ("images", dict(id=1, file_name="1.png"), r"has two images with one id, 1: .*file_name '0.png' and '1.png'"),
        ("images", dict(id=2, file_name="0.png"), r"has two images with one file_name, '0.png': those of id 1 and 2"),
        ("categories", dict(id=1, name="b"), r"has two categories with one id, 1: those of name 'a' and 'b'"),
    ):
        path.write_text(json.dumps({**sound, kind: [*sound[kind], other]}))
        with pytest.raises(UserError, match=fault):
            load(tmp_path, str(path), train_split="test")
    path.write_text("[]")
    with pytest.raises(UserError, match=r"objects.json is not in COCO's format"):
        load(tmp_path, str(path), train_split="test")


def test_the_config_for_own_masks_takes_two_folders(tmp_path):
    write(tmp_path, coloured)
    (tmp_path / "masks/colours.json").write_text(
        json.dumps({name: COLOURS[i].tolist() for i, name in enumerate((*NAMES, "void"))})
    )
    experiment = config.load("configs/own_masks.py")
    experiment.data.folder = str(tmp_path / "photos")
    with pytest.raises(UserError, match=r"data\.class_maps\.class_map='masks': No such file or directory"):
        config.check(experiment)
    experiment.data.class_maps.class_map = str(tmp_path / "masks")
    with pytest.raises(UserError, match=r"has 3 classes \(background, cat, dog\): set --config.recipe.classes=3"):
        config.check(experiment)
    experiment.recipe.classes = 3
    named = config.name_classes(experiment, config.check(experiment))
    assert named.recipe.classes == NAMES
    batch = next(data.load(config.as_dict(named.data), seed=0).train())
    assert batch["image"].shape == (8, 128, 128, 3) and set(np.unique(batch["class_map"])) <= {0, 1, 2, 255}
