"""Crops of photographs: where they lie, and that no pixel is in both splits."""

import numpy as np

from cvjax.data.builders import PhotoCrops, photo_crops, photos


def test_no_pixel_is_in_both_splits_and_none_of_the_test_photographs_is_there():
    assert not set(photo_crops.PICTURES) & set(photos.TEST)
    for name in ("page", "coffee", "hubble_deep_field"):
        picture = photo_crops.read(name)
        assert max(picture.shape) <= 640
        covered = []
        for held_out in (False, True):
            mask = np.zeros(picture.shape[:2], bool)
            for top, left in photo_crops.cells(picture, held_out):
                assert top + photo_crops.CELL <= picture.shape[0] and left + photo_crops.CELL <= picture.shape[1]
                near = slice(max(0, top - 7), top + 87), slice(max(0, left - 7), left + 87)
                mask[near if held_out else (slice(top, top + 80), slice(left, left + 80))] = True
            covered.append(mask)
        assert all(mask.any() for mask in covered) and not (covered[0] & covered[1]).any()


def test_crops_are_of_their_pictures_and_of_the_cells_of_their_split():
    for split, count in (("train", 4), ("test", 2)):
        records = list(PhotoCrops.prepared("smoke").as_data_source(split))
        labels = [record["label"] for record in records]
        assert np.bincount(labels).tolist() == [count] * len(photo_crops.PICTURES)
        for record in records[:20]:
            name = [*photo_crops.PICTURES][record["label"]]
            picture = photo_crops.read(name)
            top, left = map(int, record["corner"].decode().split())
            np.testing.assert_array_equal(record["image"], picture[top : top + 64, left : left + 64])
            cells = photo_crops.cells(picture, split == "test")
            assert any(0 <= top - y <= 16 and 0 <= left - x <= 16 for y, x in cells)
