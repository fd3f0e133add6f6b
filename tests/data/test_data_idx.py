"""Folders of IDX files, as MNIST is distributed, and what is wrong with them when a download broke off."""

import gzip
import struct

import numpy as np
import pytest

from cvjax import data
from cvjax.errors import UserError

IMAGES, LABELS = "{}-images-idx3-ubyte", "{}-labels-idx1-ubyte"


def encoded(array):
    """The format by its definition: two zeros, the type, the number of axes, each length big-endian, the bytes."""
    header = struct.pack(f">BBBB{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    return header + array.astype(np.uint8).tobytes()


def examples(split):
    generator = np.random.default_rng(len(split))
    count = {"train": 12, "t10k": 5}[split]
    return generator.integers(0, 256, (count, 6, 7)), np.arange(count) % (4 if split == "train" else 3)


@pytest.fixture(params=["", ".gz"])
def mnist(tmp_path, request):
    pack = gzip.compress if request.param else bytes
    for split in ("train", "t10k"):
        for name, array in zip((IMAGES, LABELS), examples(split), strict=True):
            (tmp_path / (name.format(split) + request.param)).write_bytes(pack(encoded(array)))
    return tmp_path


def load(folder, **settings):
    settings = {"folder": str(folder), "batch": 4, **settings}
    data.check(settings)
    return data.load(settings, seed=0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_images_and_labels_are_those_of_the_files(mnist, in_memory):
    loaded = load(mnist, in_memory=in_memory)
    assert loaded.info["shape"] == (6, 7, 1)
    assert loaded.info["classes"] == ("0", "1", "2", "3")
    assert loaded.info["examples"] == {"train": 12, "test": 5}
    images, labels = examples("t10k")
    batches = list(loaded.evaluate())
    rows = {key: np.concatenate([batch[key][batch["valid"]] for batch in batches]) for key in ("image", "label")}
    np.testing.assert_array_equal(np.round(rows["image"][..., 0] * 255), images)
    np.testing.assert_array_equal(rows["label"], labels)
    assert rows["label"].dtype == np.int32
    train = loaded.train()
    epoch = [next(train) for _ in range(3)]
    for image, label in zip(
        *(np.concatenate([batch[key] for batch in epoch]) for key in ("image", "label")), strict=True
    ):
        (index,) = np.flatnonzero((examples("train")[0] == np.round(image[..., 0] * 255)).all((1, 2)))
        assert examples("train")[1][index] == label


def test_other_names_of_the_same_files(tmp_path):
    for split, name in (("train", "emnist-letters-train"), ("t10k", "test")):
        for part, array in zip((IMAGES, LABELS), examples(split), strict=True):
            (tmp_path / part.format(name).replace("-idx", ".idx")).write_bytes(encoded(array))
    assert load(tmp_path).info["examples"] == {"train": 12, "test": 5}


def test_without_labels_there_are_no_classes(tmp_path):
    for split in ("train", "t10k"):
        (tmp_path / IMAGES.format(split)).write_bytes(encoded(examples(split)[0]))
    loaded = load(tmp_path)
    assert loaded.info["classes"] == ()
    assert "label" not in next(loaded.train())
    (tmp_path / LABELS.format("train")).write_bytes(encoded(examples("train")[1]))
    with pytest.raises(UserError, match=r"has labels for 'train' but not for 'test'"):
        load(tmp_path)


TRAIN, TRAINED = examples("train")


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (IMAGES, encoded(TRAIN)[:-1], r"train-images-idx3-ubyte is cut short: 12x6x7 need 520 bytes, and it has 519"),
        (IMAGES, encoded(TRAIN)[:9], r"train-images-idx3-ubyte is cut short"),
        (IMAGES, encoded(TRAIN) + b"\0", r"train-images-idx3-ubyte is too long: 12x6x7 need 520 bytes, and it has 521"),
        (IMAGES, b"", r"no IDX file of unsigned bytes: it begins with nothing"),
        (IMAGES, b"<html>", r"no IDX file of unsigned bytes: it begins with 3c 68 74 6d"),
        (IMAGES, b"\0\0\x0d" + encoded(TRAIN)[3:], r"no IDX file of unsigned bytes: it begins with 00 00 0d 03"),
        (IMAGES, encoded(TRAINED), r"train-images-idx3-ubyte has 1 axes, where its name says 3"),
        (IMAGES, encoded(TRAIN[:0]), r"data.train_split='train': there are no images in .*train-images"),
        (IMAGES, encoded(TRAIN[:9]), r"train-images-idx3-ubyte has 9 images, but .*train-labels.* has 12 labels"),
        (
            LABELS,
            encoded(TRAINED * 0),
            r"t10k-labels.* has the label 2, but the largest in .*train-labels.* is 0",
        ),
        (IMAGES + ".gz", gzip.compress(encoded(TRAIN)), r"has the images of 'train' twice"),
    ],
)
def test_broken_files_are_named(tmp_path, name, content, message):
    for split in ("train", "t10k"):
        for part, array in zip((IMAGES, LABELS), examples(split), strict=True):
            (tmp_path / part.format(split)).write_bytes(encoded(array))
    (tmp_path / name.format("train")).write_bytes(content)
    with pytest.raises(UserError, match=message):
        load(tmp_path)


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-9], lambda whole: b"no gzip", lambda whole: whole[:20] + whole[40:]]
)
def test_broken_gzip_files_are_named(tmp_path, damage):
    (tmp_path / (IMAGES.format("train") + ".gz")).write_bytes(damage(gzip.compress(encoded(TRAIN))))
    with pytest.raises(UserError, match=r"train-images-idx3-ubyte\.gz is no whole gzip file.*Download it again"):
        load(tmp_path, eval_split="train")


def test_mistakes_in_the_settings_are_named(mnist):
    with pytest.raises(UserError, match=r"data.eval_split='val'.*has no such images. .*Known: test, train"):
        load(mnist, eval_split="val")
    asked = r"data\.images, data\.keep, data\.class_maps and data\.max_boxes"
    with pytest.raises(UserError, match=f"{asked} are for folders of image files"):
        load(mnist, images={"target": "right"})


def test_unseen_classes_are_not_those_of_training(mnist):
    with pytest.raises(UserError, match="the classes 0, 1, 2 in the training images and in 'test'"):
        load(mnist, unseen_classes=True)
