"""TFDS's catalogue through its mock data: any dataset by name, without TensorFlow."""

import os
import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import builders, catalogue, loading
from cvjax.data.builders import embedded
from cvjax.data.features import Columns
from cvjax.errors import UserError


@pytest.fixture
def mocked():
    with tfds.testing.mock_data(num_examples=30):
        yield


@pytest.mark.parametrize(("name", "shape", "classes"), [("mnist", (28, 28, 1), 10), ("cifar100", (32, 32, 3), 100)])
def test_datasets_are_read_by_name(mocked, name, shape, classes):
    settings = {"name": name, "batch": 8}
    data.check(settings)
    loaded = data.load(settings, seed=0)
    assert loaded.info["shape"] == shape
    assert len(loaded.info["classes"]) == classes
    batch = next(loaded.train())
    assert batch["image"].shape == (8, *shape)
    assert batch["image"].dtype == np.float32
    assert 0.9 < batch["image"].max() <= 1
    assert batch["label"].dtype == np.int32
    assert sum(part["valid"].sum() for part in loaded.evaluate()) == 30
    assert "tensorflow" not in sys.modules


def test_streamed_and_in_memory_agree(mocked):
    memory, disk = (
        data.load({"name": "mnist", "batch": 8, "in_memory": where}, seed=0).train() for where in (True, False)
    )
    for _ in range(6):
        first, second = next(memory), next(disk)
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


def test_features_that_do_not_stack_are_left_out(mocked):
    batch = next(data.load({"name": "cifar100", "batch": 8}, seed=0).train())
    assert set(batch) == {"image", "label", "coarse_label"}  # and not `id`, a string


def test_images_of_any_size_need_a_transform(mocked):
    resize = [dict(op="resize", size=16)]
    settings = {"name": "cycle_gan/maps", "batch": 4, "train_split": "trainA", "eval_split": "testA"}
    with pytest.raises(UserError, match=r"example 0 of cycle_gan/maps \(trainA\).*resize"):
        data.load(settings, seed=0)
    loaded = data.load({**settings, "transforms": resize, "eval_transforms": resize}, seed=0)
    assert next(loaded.train())["image"].shape == (4, 16, 16, 3)


class Coco(builders.Embedded, skip_registration=True):
    """What a prepared `coco/2017` looks like on disk; TFDS's own code for it cannot run without TensorFlow."""

    name = "coco"
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name="2017", version=tfds.core.Version("1.1.0"))]  # noqa: RUF012

    def _info(self):
        box = {"bbox": tfds.features.BBoxFeature(), "label": tfds.features.ClassLabel(num_classes=80)}
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
            "image/id": np.int64,
            "objects": tfds.features.Sequence(box),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(12), "validation": self._generate_examples(5)}

    def _generate_examples(self, count):
        for key in range(count):
            boxes = [{"bbox": tfds.features.BBox(0.1, 0.1, 0.5, 0.5), "label": 3}] * key
            image = embedded.png(np.full((20 + key, 30, 3), key, np.uint8))
            yield key, {"image": image, "image/id": 1000 + key, "objects": boxes}


@pytest.mark.parametrize("in_memory", [True, False])
def test_a_prepared_dataset_is_read_from_its_files_alone(tmp_path, in_memory):
    Coco.prepared("2017", tmp_path)
    resize = [dict(op="resize", size=(16, 16))]
    settings = {"name": "coco/2017", "data_dir": str(tmp_path), "batch": 5, "in_memory": in_memory}
    settings |= {"eval_split": "validation", "transforms": resize, "eval_transforms": resize}
    data.check(settings)
    loaded = data.load(settings, seed=0)
    assert loaded.info["examples"] == {"train": 12, "validation": 5}
    batch = next(loaded.evaluate())
    assert set(batch) == {"image", "image/id", "valid"}
    np.testing.assert_array_equal(np.round(batch["image"][:, 0, 0, 0] * 255) + 1000, batch["image/id"])
    with pytest.raises(UserError, match=r"data.eval_split='test'.*Known: train, validation"):
        data.check({**settings, "eval_split": "test"})
    assert "tensorflow" not in sys.modules


@pytest.mark.parametrize("size", [0, 70_000, -10])
def test_a_file_of_a_dataset_that_is_cut_short_is_said(tmp_path, size):
    [file] = Coco.prepared("2017", tmp_path).data_path.glob("*train*")
    file.write_bytes(file.read_bytes()[:size])
    settings = {"name": "coco/2017", "data_dir": str(tmp_path), "eval_split": "validation"}
    settings |= {key: [dict(op="resize", size=(16, 16))] for key in ("transforms", "eval_transforms")}
    message = r"example \d of coco/2017 \(train\) cannot be read: "
    for in_memory in (True, False):
        with pytest.raises(UserError, match=message):
            next(data.load({**settings, "in_memory": in_memory}, seed=0).train())
    source = catalogue.open_split("coco/2017", "train", str(tmp_path))
    for read in (source.read_labels, lambda: source.read_texts("caption")):
        with pytest.raises(UserError, match=message):
            read()


def test_a_dataset_in_a_format_without_random_access_says_what_to_do(tmp_path):
    folder = Coco.prepared("2017", tmp_path).data_path
    info = folder / "dataset_info.json"
    info.write_text(info.read_text().replace("array_record", "tfrecord"))
    with pytest.raises(UserError, match=rf"tfds build coco/2017.*Move {folder} away first"):
        data.check({"name": "coco/2017", "data_dir": str(tmp_path), "eval_split": "validation"})


def test_a_folder_whose_name_tfds_cannot_take_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"data\.data_dir=.*caf\\xe9 is not UTF-8, and TFDS takes no other path"):
        data.check({"name": "digits", "data_dir": str(tmp_path / os.fsdecode(b"caf\xe9"))})


def test_an_example_that_cannot_be_decoded_is_named_or_skipped(capsys):
    class Records(list):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("bad bytes")
            return {"image": np.full((4, 4, 1), index, np.uint8), "label": np.int64(index)}

    source = catalogue.CatalogueSplit("some", "train", "/", 6, (), Columns(("image", "label")), Records(range(6)))
    with pytest.raises(UserError, match=r"example 3 of some \(train\) cannot be read: bad bytes"):
        source[3]
    kept = loading._readable(source, "skip")
    assert [int(kept[index]["label"]) for index in range(len(kept))] == [0, 1, 2, 4, 5]
    assert "Skipping 1 of 6" in capsys.readouterr().err
