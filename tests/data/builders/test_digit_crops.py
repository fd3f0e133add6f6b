"""Crops with one digit each: of its class, and split as the scenes are."""

import numpy as np
import pytest

from cvjax import data
from cvjax.data.builders import DigitCrops, digits, photos


@pytest.mark.parametrize(("split", "names"), [("train", photos.TRAIN), ("test", photos.TEST)])
def test_digits_and_photographs_are_those_of_the_split(split, names):
    records = list(DigitCrops.prepared("smoke").as_data_source(split))
    rows = [int(record["id"]) for record in records]
    assert set(rows) <= set(digits.rows()[split].tolist())
    assert {record["photograph"].decode() for record in records} <= set(names)
    assert [record["label"] for record in records] == digits.scans()[1][rows].tolist()
    assert len({record["label"] for record in records}) > 5


def test_a_crop_is_a_small_colour_image_with_a_label():
    found = data.arrays("digit_crops/smoke", "test")
    assert set(found) == {"image", "label"}
    assert found["image"].shape == (32, 32, 32, 3) and found["label"].shape == (32,)
    assert np.ptp(found["image"], axis=-1).max() > 0.5  # coloured, on grey photographs too
