"""TFDS's catalogue through its mock data: any dataset by name, without TensorFlow."""

import sys

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import catalogue, loading
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


def test_an_example_that_cannot_be_decoded_is_named_or_skipped(capsys):
    class Records(list):
        def __getitem__(self, index):
            if index == 3:
                raise ValueError("bad bytes")
            return {"image": np.full((4, 4, 1), index, np.uint8), "label": np.int64(index)}

    source = catalogue.CatalogueSplit("some", "train", "/", 6, (), ("image", "label"), Records(range(6)))
    with pytest.raises(UserError, match=r"example 3 of some \(train\) cannot be read: bad bytes"):
        source[3]
    kept = loading._readable(source, "skip")
    assert [int(kept[index]["label"]) for index in range(len(kept))] == [0, 1, 2, 4, 5]
    assert "Skipping 1 of 6" in capsys.readouterr().err
