"""Scenes of digits: fixed splits, boxes and masks that fit what is painted, captions that tell it."""

import re

import cv2
import numpy as np
import pytest
from skimage import color

from cvjax import data
from cvjax.data.builders import DigitScenes, composition, digits, photos
from cvjax.data.builders.composition import Digit, Glyphs, Layout, background, compose

GREY = ("camera", "brick")  # photographs without colour, both for testing
SPLITS = {"train": 64, "test": 32}


def records(split):
    return list(DigitScenes.prepared("smoke").as_data_source(split))


@pytest.fixture(scope="module")
def smoke():
    return {
        split: data.arrays("digit_scenes/smoke", split, keep=("class_map", "instances", "caption")) for split in SPLITS
    }


def composed(layout, count, split="train"):
    """Scenes on a black background, a random stream each."""
    glyphs = Glyphs(split)
    for key in range(count):
        canvas = np.zeros((layout.size, layout.size, 3), np.float32)
        yield compose(np.random.default_rng(key), canvas, glyphs, layout)


def test_splits_share_neither_digits_nor_photographs():
    rows = digits.rows()
    for split, names in (("train", photos.TRAIN), ("test", photos.TEST)):
        examples = records(split)
        assert len(examples) == SPLITS[split]
        used = {int(row) for example in examples for row in example["objects"]["id"]}
        assert used <= set(rows[split].tolist())
        assert {example["photograph"].decode() for example in examples} == set(names)
        for example in examples:
            labels = np.array([int(label) for label in example["objects"]["label"]])
            ids = np.array([int(row) for row in example["objects"]["id"]])
            np.testing.assert_array_equal(labels, digits.scans()[1][ids])


def test_backgrounds_are_of_the_photograph_that_is_named():
    for split in SPLITS:
        for example in records(split):
            # Paint ends softly, some pixels around a digit's own.
            painted = cv2.dilate(example["instances"][..., 0], np.ones((9, 9)))
            rest = example["image"][painted == 0].astype(int)
            assert (np.ptp(rest, axis=1).max() == 0) == (example["photograph"].decode() in GREY)


def test_two_preparations_are_equal(tmp_path, smoke):
    for split in SPLITS:
        again = data.arrays("digit_scenes/smoke", split, str(tmp_path), keep=("class_map", "instances", "caption"))
        for key, value in smoke[split].items():
            np.testing.assert_array_equal(again[key], value)


def test_masks_boxes_and_labels_belong_together(smoke):
    for scenes in smoke.values():
        for index, present in enumerate(scenes["mask"].sum(axis=1)):
            instances = scenes["instances"][index]
            assert set(np.unique(instances)) == set(range(present + 1))
            expected = np.zeros_like(instances)
            for row in range(present):
                mine = instances == row + 1
                rows, columns = np.flatnonzero(mine.any(1)), np.flatnonzero(mine.any(0))
                x1, y1, x2, y2 = scenes["boxes"][index, row]
                assert x1 <= columns[0] < columns[-1] + 1 <= x2
                assert y1 <= rows[0] < rows[-1] + 1 <= y2
                assert mine.sum() == scenes["area"][index, row]
                expected[mine] = 1 + scenes["labels"][index, row]
            np.testing.assert_array_equal(scenes["class_map"][index], expected)
        assert not scenes["crowd"].any()
        assert scenes["boxes"].min() >= 0
        assert scenes["boxes"].max() <= 64


def test_plain_scenes_have_whole_upright_digits_of_the_sizes_asked_for():
    layout = Layout(degrees=0.0, occlusion=False)
    counts, sizes = [], []
    for scene in composed(layout, 150):
        boxes = np.array([thing["box"] for thing in scene["objects"]])
        counts.append(len(boxes))
        sizes += (boxes[:, 2:] - boxes[:, :2]).max(1).tolist()
        for row, box in enumerate(boxes):
            mine = scene["instances"] == row + 1
            tight = cv2.boundingRect(mine.astype(np.uint8))
            overlaps = [other for other in range(len(boxes)) if other != row and shared(box, boxes[other])]
            if not overlaps:  # and so is not covered
                np.testing.assert_array_equal(np.array(tight), [*box[:2], *(box[2:] - box[:2])])
            assert all(shared(box, boxes[other]) <= 0.05 for other in overlaps)
            assert not scene["objects"][row]["difficult"]
    assert set(counts) == {1, 2, 3, 4, 5}
    assert 11 <= min(sizes) <= 13  # a rounded-off corner may take a pixel
    assert 27 <= max(sizes) <= 29


def test_pairs_have_two_large_digits():
    (layout,) = (variant.layout for variant in DigitScenes.BUILDER_CONFIGS if variant.name == "pairs_64")
    scenes = list(composed(layout, 60, "test"))
    counts = [len(scene["objects"]) for scene in scenes]
    assert set(counts) <= {1, 2} and np.mean(counts) > 1.9  # now and then there is no room for the second
    sizes = [np.ptp(thing["box"].reshape(2, 2), axis=0).max() for scene in scenes for thing in scene["objects"]]
    assert 19 <= min(sizes) <= 21 and 27 <= max(sizes) <= 29


def shared(first, second):
    """Area that two boxes share over that of the smaller one."""
    sides = np.minimum(first[2:], second[2:]) - np.maximum(first[:2], second[:2])
    return np.prod(np.maximum(sides, 0)) / min(np.prod(box[2:] - box[:2]) for box in (first, second))


def test_difficult_is_what_shows_less_than_two_fifths():
    """An upright digit is drawn again alone, as large as its box, if that is not cut: so much would be visible."""
    layout, glyphs = Layout(degrees=0.0), Glyphs("train")
    judged = {True: 0, False: 0}
    for scene in composed(layout, 400):
        for thing in scene["objects"]:
            box = thing["box"]
            if (box % layout.size == 0).any():
                continue
            whole = (glyphs.draw(thing["row"], float((box[2:] - box[:2]).max()), 0.0) > 0.5).sum()
            share = thing["area"] / whole  # to a tenth or so: the size is known to a pixel
            assert share < 0.46 if thing["difficult"] else share > 0.66
            judged[thing["difficult"]] += 1
    assert judged[True] > 10
    assert judged[False] > 600


def test_a_digit_at_the_border_has_the_box_of_what_lies_inside():
    """The opaque pixels are columns 4 to 7 and rows 2 to 11 of the stamp, of which the border cuts two columns."""
    alpha = np.zeros((14, 12), np.float32)
    alpha[1:13, 3:9] = 0.4
    alpha[2:12, 4:8] = 1
    digit = Digit(row=0, label=7, alpha=alpha, top=20, left=-6)
    np.testing.assert_array_equal(digit.box, [-2, 22, 2, 32])
    scene, own = digit.windows(64)
    canvas = np.zeros((64, 64))
    canvas[scene] = alpha[own]
    np.testing.assert_array_equal(canvas[20:34, :6], alpha[:, 6:])
    canvas[20:34, :6] = 0
    assert not canvas.any()


def test_digits_can_be_read_off_the_pictures():
    """One nearest neighbour among the scans reads what is painted, shrunk to a scan's eight pixels."""
    scans, labels = digits.scans()
    train = digits.rows()["train"]
    right = []
    for scene in composed(Layout(degrees=0.0, occlusion=False), 100, "test"):
        for row, thing in enumerate(scene["objects"]):
            x1, y1, x2, y2 = thing["box"]
            mine = (scene["instances"][y1:y2, x1:x2] == row + 1).astype(np.float32)
            side = max(mine.shape)
            square = np.zeros((side, side), np.float32)
            left = (side - mine.shape[1]) // 2
            square[(side - len(mine)) // 2 :][: len(mine), left : left + mine.shape[1]] = mine
            shrunk = cv2.resize(square, (8, 8), interpolation=cv2.INTER_AREA)
            nearest = np.square(scans[train] / 16 - shrunk).sum((1, 2)).argmin()
            right.append(labels[train][nearest] == thing["label"])
    assert len(right) > 200
    assert np.mean(right) > 0.9  # 0.95; of mirrored digits half, of wrong labels a tenth


def colours(scene):
    """Names of the digits' colours, read off their middles: what is a pixel and more from the edge."""
    names, palette = list(composition.COLOURS), np.array(list(composition.COLOURS.values()))
    found = []
    for row in range(len(scene["objects"])):
        mine = (scene["instances"] == row + 1).astype(np.uint8)
        inner = cv2.erode(mine, np.ones((3, 3), np.uint8))
        colour = np.median(scene["image"][(inner if inner.any() else mine) == 1], axis=0)
        found.append(names[np.square(palette - colour).sum(1).argmin()])
    return found


def test_captions_say_what_is_where():
    lengths = set()
    for scene in composed(Layout(), 200):
        things = [
            (thing["box"][:2] + thing["box"][2:], f"{'an' if colour[0] == 'o' else 'a'} {colour} {thing['label']}")
            for thing, colour in zip(scene["objects"], colours(scene), strict=True)
            if not thing["difficult"]
        ]
        lengths.add(len(things))
        if len(things) == 1:
            assert scene["caption"] == things[0][1]
        elif len(things) == 2:
            (middle, first), (other, second) = things
            across, down = abs(middle - other)
            if {across, down} == {0} or across == down:
                continue
            word, axis = ("above", 1) if down > across else ("left of", 0)
            first, second = (first, second) if middle[axis] < other[axis] else (second, first)
            assert scene["caption"] == f"{first} {word} {second}"
        else:
            names = re.fullmatch("(.*) and (.*) from left to right", scene["caption"])
            columns = {middle[0] for middle, _ in things}
            if len(columns) == len(things):
                things.sort(key=lambda thing: thing[0][0])
                assert [*names[1].split(", "), names[2]] == [name for _, name in things]
    assert lengths == {1, 2, 3, 4, 5}


def test_colours_stand_out_from_what_they_are_put_on():
    glyphs, photograph, near = Glyphs("train"), photos.read("coffee"), []
    for key in range(60):
        generator = np.random.default_rng(key)
        canvas = background(generator, photograph, 64)
        before = canvas.copy()
        scene = compose(generator, canvas, glyphs, Layout(most=1))
        x1, y1, x2, y2 = scene["objects"][0]["box"]
        colour = np.float32(composition.COLOURS[colours(scene)[0]]) / 255
        distance = color.deltaE_cie76(color.rgb2lab(before[y1:y2, x1:x2]), color.rgb2lab(colour))
        near.append(np.mean(distance < 40))
    # The choice goes by 45 in a window a little wider.
    assert np.quantile(near, 0.9) < 0.15
    for scene in composed(Layout(), 100):
        boxes, names = [thing["box"] for thing in scene["objects"]], colours(scene)
        hard = [thing["difficult"] for thing in scene["objects"]]
        for first in range(len(boxes)):
            for second in range(first):
                if shared(boxes[first], boxes[second]) and not (hard[first] or hard[second]):
                    assert names[first] != names[second]


@pytest.mark.parametrize("name", ["64", "plain_64", "128", "256"])
def test_variants_hold_what_they_promise(name):
    config = DigitScenes.builder_configs[name]
    assert (config.train, config.test) == (6000, 1000)
    assert config.layout.size == int(name.removeprefix("plain_"))
    generator = np.random.default_rng(0)
    canvas = background(generator, photos.read("chelsea"), config.layout.size)  # the smallest photograph
    scene = compose(generator, canvas, Glyphs("test"), config.layout)
    assert scene["image"].shape == (config.layout.size, config.layout.size, 3)
    assert 1 <= len(scene["objects"]) <= config.layout.most


def test_more_scenes_are_the_same_and_others():
    few, more = (DigitScenes.builder_configs[name] for name in ("plain_64", "plain_64_more"))
    assert (more.train, more.test) == (
        12_000,
        few.test,
    ) and more.layout == few.layout  # each scene has a stream of its own


def test_a_batch_is_what_detectors_take():
    loaded = data.load({"name": "digit_scenes/smoke", "max_boxes": 5, "batch": 8}, seed=0)
    assert loaded.info["classes"] == tuple("0123456789")
    batch = next(loaded.train())
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((8, 64, 64, 3), "float32"),
        "boxes": ((8, 5, 4), "float32"),
        "labels": ((8, 5), "int32"),
        "difficult": ((8, 5), "bool"),
        "crowd": ((8, 5), "bool"),
        "area": ((8, 5), "float32"),
        "mask": ((8, 5), "bool"),
    }
    assert set(next(data.load({"name": "digit_scenes/smoke", "batch": 8}, seed=0).train())) == {"image"}
