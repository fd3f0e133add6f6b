"""Boxes of VOC and COCO as TFDS has them, against their annotations; padded, batched, refused."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import builders, catalogue, objects
from cvjax.data.builders import embedded
from cvjax.errors import UserError

# VOC 2007's 000001 and 000002 in their XML files: name, difficult, xmin, ymin, xmax, ymax; 000003 without its objects.
VOC = {
    "000001": ((353, 500), [("dog", 0, 48, 240, 195, 371), ("person", 0, 8, 12, 352, 498)]),
    "000002": ((335, 500), [("train", 1, 139, 200, 207, 301)]),
    "000003": ((500, 375), []),
}
# COCO's instances: bbox = x, y, width, height; area; iscrowd; place of the category in the file.
COCO = {
    289343: ((640, 529), [((473.07, 395.93, 38.65, 28.67), 702, 0, 16)]),
    61471: ((640, 480), [((272.1, 200.23, 151.97, 279.77), 27718, 0, 16), ((0.0, 11.5, 640.0, 100.25), 31000, 1, 0)]),
    472375: ((640, 427), []),
}


class Prepared(builders.Embedded, skip_registration=True):
    """Writes ArrayRecord as `tfds build` does; TFDS's own code for it cannot run without TensorFlow."""

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="png"), **self.FEATURES}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "validation", "test")}

    def _generate_examples(self):
        for key, (name, ((width, height), annotations)) in enumerate(self.ANNOTATIONS.items()):
            image = embedded.png(np.zeros((height, width, 3), np.uint8))
            found = [self.annotation(width, height, *annotation) for annotation in annotations]
            yield key, {"image": image, **self.named(name), "objects": found}


class Voc(Prepared, skip_registration=True):
    name = "voc"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2007", version=tfds.core.Version("5.0.0"))]  # noqa: RUF012
    ANNOTATIONS = VOC
    FEATURES = {  # noqa: RUF012
        name: feature
        for name, feature in tfds.builder("voc/2007").info.features.items()
        if name in ("image/filename", "objects")
    }

    def annotation(self, width, height, label, difficult, xmin, ymin, xmax, ymax):
        box = tfds.features.BBox(ymin=ymin / height, xmin=xmin / width, ymax=ymax / height, xmax=xmax / width)
        flags = {"pose": "left", "is_truncated": True, "is_difficult": difficult == 1}
        return {"label": label, "bbox": box, **flags}

    def named(self, name):
        return {"image/filename": f"{name}.jpg"}


class Coco(Prepared, skip_registration=True):
    name = "coco"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017", version=tfds.core.Version("1.1.0"))]  # noqa: RUF012
    ANNOTATIONS = COCO
    FEATURES = {  # as in tensorflow_datasets/object_detection/coco.py  # noqa: RUF012
        "image/id": np.int64,
        "objects": tfds.features.Sequence(
            {
                "id": np.int64,
                "area": np.int64,
                "bbox": tfds.features.BBoxFeature(),
                "label": tfds.features.ClassLabel(names=[f"class {index}" for index in range(80)]),
                "is_crowd": np.bool_,
            }
        ),
    }

    def annotation(self, width, height, bbox, area, crowd, label):
        x, y, w, h = bbox
        box = tfds.features.BBox(ymin=y / height, xmin=x / width, ymax=(y + h) / height, xmax=(x + w) / width)
        return {"id": 1, "area": area, "bbox": box, "label": label, "is_crowd": crowd == 1}

    def named(self, name):
        return {"image/id": name}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    for builder in (Voc, Coco):
        builder.prepared(data_dir=folder)
    return str(folder)


RESIZE = (dict(op="letterbox", size=(100, 100)),)


def load(prepared, name, **settings):
    settings = {"name": name, "data_dir": prepared, "batch": 3, "max_boxes": 4, **settings}
    return data.load({"transforms": RESIZE, "eval_transforms": RESIZE, **settings}, seed=0)


def test_vocs_boxes_are_those_of_its_files(prepared):
    """Pixel 1 is VOC's first and xmax its last: in continuous coordinates a box reaches from xmin - 1 to xmax."""
    source = catalogue.open_split("voc/2007", "test", prepared, boxes=True)
    assert source.classes[11] == "dog"
    first, second, third = (source[index] for index in range(3))
    np.testing.assert_array_equal(first["boxes"], np.float32([[47, 239, 195, 371], [7, 11, 352, 498]]))
    np.testing.assert_array_equal(second["boxes"], np.float32([[138, 199, 207, 301]]))
    assert [source.classes[label] for label in (*first["labels"], *second["labels"])] == ["dog", "person", "train"]
    assert first["difficult"].tolist() == [False, False]
    assert second["difficult"].tolist() == [True]
    # The area with the devkit's +1: (195 - 48 + 1)(371 - 240 + 1).
    np.testing.assert_array_equal(first["area"], [148 * 132, 345 * 487])
    assert not first["crowd"].any()
    assert {key: value.shape for key, value in third.items() if key != "image"} == {
        "boxes": (0, 4),
        "labels": (0,),
        "difficult": (0,),
        "crowd": (0,),
        "area": (0,),
    }


def test_cocos_boxes_crowds_and_areas_are_those_of_its_files(prepared):
    source = catalogue.open_split("coco/2017", "validation", prepared, boxes=True)
    first, second, third = (source[index] for index in range(3))
    np.testing.assert_array_equal(first["boxes"], np.float32([[473.07, 395.93, 511.72, 424.6]]))
    np.testing.assert_array_equal(second["boxes"], np.float32([[272.1, 200.23, 424.07, 480], [0, 11.5, 640, 111.75]]))
    np.testing.assert_array_equal(second["area"], np.float32([27718, 31000]))  # of the mask, not of the box
    assert second["crowd"].tolist() == [False, True]
    assert second["labels"].tolist() == [16, 0]
    assert not second["difficult"].any()
    assert third["boxes"].shape == (0, 4)
    assert source.classes[16] == "class 16"


@pytest.mark.parametrize("in_memory", [True, False])
def test_batches_are_padded_and_masked(prepared, in_memory):
    loaded = load(prepared, "coco/2017", in_memory=in_memory)
    assert loaded.info["classes"][:2] == ("class 0", "class 1")
    batch = next(loaded.evaluate())
    assert {key: (value.shape, value.dtype.name) for key, value in batch.items()} == {
        "image": ((3, 100, 100, 3), "float32"),
        "image/id": ((3,), "int32"),
        "boxes": ((3, 4, 4), "float32"),
        "labels": ((3, 4), "int32"),
        "difficult": ((3, 4), "bool"),
        "crowd": ((3, 4), "bool"),
        "area": ((3, 4), "float32"),
        "mask": ((3, 4), "bool"),
        "valid": ((3,), "bool"),
    }
    assert batch["image/id"].tolist() == list(COCO)
    np.testing.assert_array_equal(batch["mask"], [[1, 0, 0, 0], [1, 1, 0, 0], [0, 0, 0, 0]])
    for key in ("boxes", "labels", "difficult", "crowd", "area"):
        assert not batch[key][~batch["mask"]].any()
    # 640x480 becomes 100x75, 12 rows above and 13 below.
    scale, shift = 100 / 640, np.array([0, 12, 0, 12])
    np.testing.assert_allclose(batch["boxes"][1, 1], scale * np.array([0, 11.5, 640, 111.75]) + shift, rtol=1e-6)
    np.testing.assert_allclose(batch["area"][1, :2], scale**2 * np.array([27718, 31000]), rtol=1e-6)
    assert (batch["image"][1, :12] == 0.5).all()
    assert (batch["image"][1, 12:87] == 0).all()
    assert "tensorflow" not in sys.modules


def test_without_max_boxes_nothing_is_read_of_the_objects(prepared):
    batch = next(load(prepared, "coco/2017", max_boxes=None).train())
    assert set(batch) == {"image", "image/id"}


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_example_with_too_many_boxes_is_named(prepared, in_memory):
    with pytest.raises(UserError, match=r"example 1 of coco/2017 \(\w+\) has 2 boxes; data.max_boxes=1 .* 2 or more"):
        next(load(prepared, "coco/2017", max_boxes=1, in_memory=in_memory).evaluate())
    if in_memory:  # where all are known, the fullest is named
        with pytest.raises(UserError, match=r"example 1 of coco/2017 \(train\) has 2 boxes"):
            load(prepared, "coco/2017", max_boxes=1, in_memory=True, transforms=())
    mosaic = (*RESIZE, dict(op="mosaic"))
    with pytest.raises(UserError, match=r"example 1 .* has 2 boxes, which transforms may turn into 8; .* 8 or more"):
        next(load(prepared, "coco/2017", max_boxes=7, transforms=mosaic, in_memory=in_memory).train())
    assert next(load(prepared, "coco/2017", max_boxes=8, transforms=mosaic).train())["mask"].shape == (3, 8)


def test_vocs_real_builder_declares_what_is_read():
    """TFDS's mock gives each feature of an object a length of its own; what matters here is what the builder says."""
    with tfds.testing.mock_data(num_examples=2):
        source = catalogue.open_split("voc/2012", "train", boxes=True)
        assert len(source.classes) == 20
        assert objects.annotated(catalogue.find_builder("voc/2012").info.features).keys() >= {"bbox", "is_difficult"}
        example = source[0]
        normalised = source.records[0]["objects"]["bbox"].astype(np.float64)
    height, width = example["image"].shape[:2]
    expected = normalised[:, [1, 0, 3, 2]] * [width, height, width, height] - [1, 1, 0, 0]
    np.testing.assert_allclose(example["boxes"], expected, atol=1e-3)  # rounded to a thousandth of a pixel
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_boxes": 5}, r"data.max_boxes=5: digits has no objects with boxes"),
        ({"max_boxes": 0, "name": "digit_scenes"}, r"data.max_boxes=0: expected int at least 1"),
        ({"max_boxes": 2.0}, r"data.max_boxes=2.0: expected int"),
        ({"max_boxes": 4, "name": "digit_scenes"}, r"digit_scenes has 5 boxes; data.max_boxes=4 has to be 5 or more"),
        (
            {"max_boxes": 19, "name": "digit_scenes", "transforms": [dict(op="mosaic")]},
            r"5 boxes, which transforms may turn into 20; data.max_boxes=19",
        ),
        ({"name": "digit_scenes", "transforms": [dict(op="mosaic")]}, r"transforms\[0\].*these have none"),
        ({"max_boxes": 5, "name": "digit_scenes", "transforms": [dict(op="rotate")]}, r"rotate cannot move boxes"),
        (
            {"max_boxes": 5, "name": "digit_scenes", "transforms": [dict(op="random_crop", size=64, padding=4)]},
            r"transforms\[0\].*border='reflect' repeats objects",
        ),
        (
            {"max_boxes": 5, "name": "digit_scenes", "transforms": [dict(op="center_crop", size=9, keep="center")]},
            r"center_crop: keep='center': expected one of centre",
        ),
        (
            {"max_boxes": 5, "name": "digit_scenes", "transforms": [dict(op="center_crop", size=9, keep=2)]},
            r"keep=2.0 must be .centre., or a share",
        ),
        ({"keep": "class_map", "name": "digit_scenes"}, r"data.keep='class_map': expected tuple"),
        ({"keep": ["class_mp"], "name": "digit_scenes"}, r"no map or text 'class_mp'. Did you mean 'class_map'"),
        (
            {"keep": ["caption"], "name": "digit_scenes"},
            r"'caption' is text, .*Add dict\(op='tokenise', length=16\) to data.transforms",
        ),
        ({"name": "digit_scenes/32"}, r"no variant '32'"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(settings, message):
    with pytest.raises(UserError, match=message):
        data.check({"name": "digits", **settings})
