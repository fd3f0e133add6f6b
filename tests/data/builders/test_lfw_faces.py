"""Real faces and other crops: the pictures of scikit-image, split once and for all."""

import hashlib

import numpy as np
import skimage.data

from cvjax import data
from cvjax.data.builders import LfwFaces


def test_pictures_are_those_of_scikit_image_and_the_classes_are_balanced():
    reference, seen = skimage.data.lfw_subset(), []
    for split, count in (("train", 140), ("test", 60)):
        pictures = data.arrays("lfw_faces", split)
        rows = np.array([int(record["id"].decode()) for record in LfwFaces.prepared().as_data_source(split)])
        assert len(rows) == count and pictures["label"].mean() == 0.5
        np.testing.assert_array_equal(pictures["label"], rows >= 100)
        np.testing.assert_allclose(pictures["image"][..., 0], reference[rows], atol=0.5 / 255 + 1e-6)
        assert np.abs(np.diff(pictures["label"])).sum() > 10  # mixed
        seen += rows.tolist()
    assert sorted(seen) == list(range(200))
    assert hashlib.sha256(np.sort(seen[140:]).astype(np.int32).tobytes()).hexdigest()[:16] == "6e68033de89d83cd"
