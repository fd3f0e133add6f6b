"""Keypoints of a TFDS dataset's objects: read as COCO counts them, padded with their boxes, refused where wrong."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import people
from cvjax.data.annotations import Annotations
from cvjax.data.builders import embedded
from cvjax.data.keypoints import Keypoints, mirrored_pairs
from cvjax.errors import UserError

HEIGHT, WIDTH, COUNT = 12, 16, 4


def joints(index):
    """x, y in whole pixels and visibility of 0 to 2 objects; the last joint of the second object is outside."""
    found = np.random.default_rng(index).integers(0, (WIDTH, HEIGHT, 3), (index % 3, 3, 3))
    found[1:, 2] = WIDTH + 1, 3, 2
    return found


class Posed(embedded.Embedded, skip_registration=True):
    """Objects with three joints, as whole pixels, in pixels and as fractions."""

    name = "posed"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        inner = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["person"]),
            "pixels": tfds.features.Tensor(shape=(3, 3), dtype=np.int64),
            "keypoints": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
            "fractions": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
            "wrong": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
        }
        image = tfds.features.Image(shape=(HEIGHT, WIDTH, 3), encoding_format="png")
        features = {"image": image, "objects": tfds.features.Sequence(inner)}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for index in range(2 * COUNT):
            objects = []
            for one in joints(index):
                middles = np.add(one, [0.5, 0.5, 0], dtype=np.float32)
                written = {
                    "pixels": one,
                    "keypoints": middles,
                    "fractions": middles / np.float32([WIDTH, HEIGHT, 1]),
                    "wrong": middles + np.float32([0, 0, 1]),
                }
                box = tfds.features.BBox(ymin=0.0, xmin=0.0, ymax=1.0, xmax=1.0)
                objects.append({"bbox": box, "label": 0, **written})
            yield index, {"image": embedded.png(np.zeros((HEIGHT, WIDTH, 3), np.uint8)), "objects": objects}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    Posed.prepared(data_dir=folder)
    return str(folder)


def load(prepared, keypoints, **settings):
    chosen = {"name": "posed", "data_dir": prepared, "batch": COUNT, "max_boxes": 3, "keypoints": keypoints, **settings}
    return data.load(chosen, seed=0)


@pytest.mark.parametrize("feature", ["pixels", "keypoints", "fractions"])
def test_batches_hold_joints_in_pixels_whatever_the_dataset_counts_in(prepared, feature):
    asked = {"feature": feature, "exchange": ((0, 1),), "normalised": feature == "fractions"}
    for step, batch in enumerate(load(prepared, asked).evaluate()):
        assert batch["keypoints"].shape == (COUNT, 3, 3, 2) and batch["keypoints"].dtype == np.float32
        assert batch["visibility"].shape == (COUNT, 3, 3) and batch["visibility"].dtype == np.int32
        for row in range(COUNT):
            found = joints(COUNT * step + row)
            count = len(found)
            assert batch["mask"][row].sum() == count
            assert not batch["keypoints"][row, count:].any() and not batch["visibility"][row, count:].any()
            inside = found[..., 0] < WIDTH
            np.testing.assert_array_equal(batch["visibility"][row, :count], np.where(inside, found[..., 2], 0))
            expected = np.where((inside & (found[..., 2] > 0))[..., None], found[..., :2] + 0.5, 0)
            np.testing.assert_allclose(batch["keypoints"][row, :count], expected, atol=1e-5)


def test_transforms_move_them_and_memory_and_disk_agree(prepared):
    flip = [dict(op="flip", p=1.0), dict(op="random_shift", pixels=2)]
    asked = {"feature": "pixels", "exchange": ((0, 1),)}
    memory, disk = (load(prepared, asked, transforms=flip, in_memory=where).train() for where in (True, False))
    plain = next(load(prepared, asked, transforms=flip[:1]).train())
    kept = next(load(prepared, asked).train())
    order = [1, 0, 2]
    np.testing.assert_array_equal(plain["visibility"], kept["visibility"][..., order])
    seen = plain["visibility"] > 0
    np.testing.assert_array_equal(plain["keypoints"][seen][:, 0], WIDTH - kept["keypoints"][:, :, order][seen][:, 0])
    for _ in range(3):
        first, second = next(memory), next(disk)
        for key in first:
            np.testing.assert_array_equal(first[key], second[key])


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_boxes": None}, r"data.keypoints belong to boxes, so set data.max_boxes"),
        ({"keypoints": {}}, r"data.keypoints.exchange names joint 16, but there are 3, numbered from 0"),
        ({"keypoints": {"feature": "pixel"}}, r"the objects of posed have no keypoints 'pixel'. Did you mean 'pixels'"),
        ({"keypoints": {"feature": "keypoints", "swap": ()}}, r"data.keypoints.swap: there is no such key"),
        ({"keypoints": {"exchange": ((0, 0),)}}, r"data.keypoints.exchange=.* each of them once"),
        ({"keypoints": {"feature": "wrong", "exchange": ()}}, r"visibility of a joint is 0, 1 or 2, and not .*3"),
        ({"name": "digit_scenes"}, r"objects of digit_scenes have no keypoints 'keypoints'. None of their features"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(prepared, settings, message):
    chosen = {"keypoints": {"exchange": ((0, 1),)}, **settings}
    chosen |= {"data_dir": None} if "name" in settings else {}
    with pytest.raises(UserError, match=message):
        next(load(prepared, **chosen).train())


def test_a_further_image_cannot_be_called_as_they_are():
    with pytest.raises(UserError, match="'visibility' is taken in a batch"):
        Annotations.of({"max_boxes": 2, "images": {"visibility": "other"}})


def test_pairs_follow_from_names():
    assert mirrored_pairs(people.JOINTS) == people.EXCHANGE
    names = ("Right ear", "tail", "Left ear", "left foot")
    assert mirrored_pairs(names) == ((2, 0),)
    Keypoints().check_count(17, people.JOINTS)
    Keypoints().check_count(17)
    for others in ([f"finger {number}" for number in range(21)], [f"l_joint {number}" for number in range(17)]):
        with pytest.raises(UserError, match="exchange to the pairs that a mirror exchanges, \\(\\) for none"):
            Keypoints().check_count(len(others), others)
        Keypoints(exchange=people.EXCHANGE).check_count(len(others), others)  # as it was asked for
    with pytest.raises(UserError, match=r"names joint 16, but there are 4.*data.keypoints.exchange=\(\(2, 0\),\)"):
        Keypoints().check_count(4, names)
    Keypoints(exchange=((2, 0),)).check_count(4, names)
