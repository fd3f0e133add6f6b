"""Class maps of datasets by name: their tables, and values that have no class."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import builders, class_maps
from cvjax.data.builders import embedded
from cvjax.data.class_maps import ClassMap, Table
from cvjax.errors import UserError

CITYSCAPES = [7, 8, 11, 12, 13, 17, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 31, 32, 33]


def values(index):
    """The values of a map: all of 0 to 33 but those that a pet has not, and 255."""
    return np.random.default_rng(index).permutation([*range(34), 255, 255]).reshape(4, 9).astype(np.uint8)


class _Maps(builders.Embedded, skip_registration=True):
    VERSION = tfds.core.Version("1.0.0")
    first, feature, levels = "image", "segmentation_mask", 256

    def _info(self):
        shapes = {self.first: 3, self.feature: 1}
        images = {name: tfds.features.Image(shape=(4, 9, c), encoding_format="png") for name, c in shapes.items()}
        images["declared"] = tfds.features.LabeledImage(labels=[f"kind {i}" for i in range(256)], shape=(4, 9, 1))
        features = tfds.features.FeaturesDict({**images, "label": tfds.features.ClassLabel(names=["cat", "dog"])})
        return tfds.core.DatasetInfo(builder=self, features=features, disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for index in range(3):
            numbers = (values(index)[..., None].astype(int) % self.levels).astype(np.uint8)
            images = {self.first: numbers.repeat(3, -1), self.feature: numbers, "declared": numbers}
            yield index, {"label": index % 2, **{name: embedded.png(pixels) for name, pixels in images.items()}}


class Cityscapes(_Maps, skip_registration=True):
    name, first, feature = "cityscapes", "image_left", "segmentation_label"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="semantic_segmentation")]  # noqa: RUF012 (TFDS's own way)


class Pets(_Maps, skip_registration=True):
    name, levels = "oxford_iiit_pet", 4


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    Cityscapes.prepared("semantic_segmentation", folder)
    Pets.prepared(data_dir=folder)
    return str(folder)


def load(name, prepared, asked, **settings):
    chosen = {"name": name, "data_dir": prepared, "batch": 2, "class_maps": asked, **settings}
    return data.load(chosen, seed=0), data.check(chosen)


def test_cityscapes_has_the_19_classes_of_its_benchmark_and_its_left_image(prepared):
    opened, names = load("cityscapes/semantic_segmentation", prepared, {"class_map": "segmentation_label"})
    assert names == opened.info["classes"] == tuple(class_maps.CITYSCAPES)[:19]
    batch = next(opened.evaluate())
    assert batch["image"].shape == (2, 4, 9, 3) and "image_left" not in batch
    assert batch["class_map"].dtype == np.int32
    for row in range(2):
        for value, found in zip(values(row).ravel(), batch["class_map"][row].ravel(), strict=True):
            assert found == (CITYSCAPES.index(value) if value in CITYSCAPES else 255)


def test_pets_have_two_classes_and_a_border_that_is_void(prepared):
    table = Table.of(class_maps.KNOWN["oxford_iiit_pet"], "")
    assert table.names == ("background", "pet")
    np.testing.assert_array_equal(table.classes(np.array([[1, 2, 3, 255]])), [[1, 0, 255, 255]])
    fault = r"example \d of oxford_iiit_pet .*`segmentation_mask`: no class has the value 0 in 9 pixels; .* 1 to 3, 255"
    with pytest.raises(UserError, match=fault):
        load("oxford_iiit_pet", prepared, {"class_map": "segmentation_mask"})


def test_a_config_gives_classes_of_several_values(prepared):
    asked = dict(source="segmentation_mask", classes={"animal": [1, 3], "other": 0, "void": 2})
    opened, names = load("oxford_iiit_pet", prepared, {"animals": asked}, transforms=[dict(op="pad", padding=1)])
    assert names == ("animal", "other")
    batch, moved = next(opened.evaluate()), next(opened.train())
    np.testing.assert_array_equal(batch["animals"][0], np.array([1, 0, 255, 0])[values(0) % 4])
    assert (moved["animals"][:, 0] == 255).all() and (moved["image"][:, 0] == 0).all()


def test_a_map_that_declares_its_labels_has_these_classes(prepared):
    asked = {"class_map": "declared"}
    with pytest.raises(UserError, match=r"declared has 256 classes; there must be 1 to 255"):
        data.check({"name": "oxford_iiit_pet", "data_dir": prepared, "class_maps": asked})


def test_digit_scenes_have_a_background_and_ten_digits():
    chosen = {
        "name": "digit_scenes/smoke",
        "class_maps": {"class_map": "class_map"},
        "keep": ("instances",),
        "batch": 8,
    }
    opened = data.load(chosen, seed=0)
    assert data.check(chosen) == opened.info["classes"] == ("background", *"0123456789")
    batch = next(opened.train())
    assert set(np.unique(batch["class_map"])) <= set(range(11))
    np.testing.assert_array_equal(batch["class_map"] > 0, batch["instances"] > 0)


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"class_map": "mask"}, r"data.class_maps.class_map: oxford_iiit_pet has no map 'mask'.*segmentation_mask"),
        ({"class_map": 3}, r"class_map must be text, or a dict of `source`"),
        ({"class_map": dict(source="declared", clases={})}, r"clases"),
        ({"class_map": dict(source="declared", classes="vok")}, r"classes='vok': there is no table.*voc"),
        ({"class_map": dict(source="declared", classes={"a": 1, "b": [2, 1]})}, r"1 is of two classes, of 'b' for one"),
        ({"class_map": dict(source="declared", classes={"a": "1"})}, r"classes.a='1' must be a number from 0 on"),
        ({"class_map": dict(source="declared", colours={"a": (1, 2, 3)})}, r"hold numbers; give `classes`"),
        ({"class_map": dict(source="declared", classes={"void": 1})}, r"has 0 classes"),
        ({"label": "segmentation_mask"}, r"'label' is taken in a batch"),
    ],
)
def test_mistakes_are_named_before_anything_is_read(prepared, asked, message):
    with pytest.raises(UserError, match=message):
        data.check({"name": "oxford_iiit_pet", "data_dir": prepared, "class_maps": asked})


def test_unknown_values_are_counted_the_most_frequent_first():
    asked = ClassMap.of("m", dict(source="x", colours={"sky": (0, 0, 255), "void": [(0, 0, 0), (1, 1, 1)]}))
    colours = np.array([[[0, 0, 255], [1, 1, 1], [9, 8, 7], [9, 8, 7], [0, 255, 0]]])
    with pytest.raises(ValueError, match=r"no class has the colour \(9, 8, 7\) in 2 pixels, \(0, 255, 0\) in 1 pixel;"):
        asked.table.classes(class_maps.pack(colours))
    np.testing.assert_array_equal(asked.table.classes(class_maps.pack(colours[:, :2])), [[0, 255]])
