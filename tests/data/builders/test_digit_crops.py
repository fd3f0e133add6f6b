"""Crops with one digit each: whole, of their class, and split as the scenes are."""

import numpy as np
import pytest

from cvjax import data
from cvjax.data.builders import digit_crops, digits, photos


@pytest.fixture(scope="module", autouse=True)
def few():
    """A few crops in place of all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(digit_crops, "EXAMPLES", {"train": 40, "test": 20})
        yield


def examples(split):
    builder = digit_crops.DigitCrops.__new__(digit_crops.DigitCrops)
    return [features for _, features in builder._generate_examples(split)]


@pytest.mark.parametrize(("split", "names"), [("train", photos.TRAIN), ("test", photos.TEST)])
def test_digits_and_photographs_are_those_of_the_split(split, names):
    found = examples(split)
    assert {int(features["id"]) for features in found} <= set(digits.rows()[split].tolist())
    assert {features["photograph"] for features in found} <= set(names)
    labels = digits.scans()[1]
    assert all(features["label"] == labels[int(features["id"])] for features in found)
    assert len({features["label"] for features in found}) > 5


def test_a_crop_is_a_batchs_image_with_its_label(tmp_path):
    found = data.arrays("digit_crops", "test", str(tmp_path))
    assert found["image"].shape == (20, 32, 32, 3) and found["label"].shape == (20,)
    np.testing.assert_array_equal(found["label"], [features["label"] for features in examples("test")])
