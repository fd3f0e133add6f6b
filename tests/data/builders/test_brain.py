"""Slices of a brain from volumes: the right way up, classes of probabilities, and splits that lie apart."""

import gzip
import sys

import numpy as np
import packaged
import pytest

from cvjax import data
from cvjax.data import catalogue
from cvjax.data.annotations import Annotations
from cvjax.data.builders import Brain, brain
from cvjax.errors import UserError

READ = Annotations.of({"keep": ("slice",), "class_maps": {"class_map": "class_map"}})


def volumes(height=30):
    """A head of 40x60 voxels: grey matter, white in its right half, and one bright voxel group at the front left."""
    t1, grey, white = (np.zeros((51, 71, height + 11), np.uint8) for _ in range(3))
    grey[4:44, 6:66, 2 : 2 + height] = 200
    white[24:44, 6:66, 2 : 2 + height] = 220
    t1[4:44, 6:66, 2 : 2 + height] = 100
    t1[4:8, 62:66, 2 : 2 + height] = 255
    return {"t1": t1, "grey": grey, "white": white}


def test_slices_are_the_right_way_up_in_the_middle_and_hold_brain():
    images, classes = brain.slices(**volumes())
    assert images.shape == classes.shape == (15, 96, 80) and images.dtype == classes.dtype == np.uint8
    rows, columns = slice(33, 63), slice(30, 50)  # 30x20 pixels in the middle of 96x80
    wanted = np.zeros((96, 80), np.uint8)
    wanted[rows, columns] = 1
    wanted[rows, 40:50] = 2  # on the right
    np.testing.assert_array_equal(classes, np.broadcast_to(wanted, classes.shape))
    assert (images[:, 33:35, 30:32] == 255).all()  # the front is up, the left on the left
    assert (images[:, rows, columns] >= 100).all() and (images[:, 64:] == 0).all()


def test_a_pixel_is_the_mean_of_eight_voxels_and_its_class_that_of_more_than_half():
    generator = np.random.default_rng(0)
    volume = generator.integers(0, 256, (5, 6, 8), dtype=np.uint8)
    found = brain.shrink(volume)
    assert found.shape == (2, 3, 4)
    for place in np.ndindex(found.shape):
        voxels = volume[tuple(slice(2 * first, 2 * first + 2) for first in place)]
        assert found[place] == voxels.mean()

    grey, white = np.zeros((2, 8, 8, 4), np.uint8)
    grey[:, :, :2] = 200
    grey[4, 4, 0] = 0  # its pixel's mean is 175
    white[4:6, 4:6, :2] = 180
    white[2:4, 2:4, :2] = 127  # not more than half
    white[0:2, 0:2, 2:] = 127
    _, (classes,) = brain.slices(grey, grey, white)
    assert (classes[46:50, 38:42] > 0).all() and (classes > 0).sum() == 16
    assert np.argwhere(classes == 2).tolist() == [[47, 40]]  # third of four from the back, so second from the front


def test_slices_of_the_splits_lie_apart():
    for count in (40, 76, 77):
        parts = brain.split(count)
        train, test = parts["train"], parts["test"]
        assert test == [*range(test[0], test[0] + 15)] and abs((count - 1) / 2 - np.mean(test)) <= 0.5
        assert min(abs(one - other) for one in train for other in test) == 6
        assert len(train) + 15 + 10 == count and train == sorted(set(train))


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """The package of three volumes."""
    nibabel = pytest.importorskip("nibabel")

    def nifti(volume):
        return gzip.compress(nibabel.Nifti1Image(volume, np.eye(4)).to_bytes())

    contents = {f"toy_brains/{name}.nii.gz": nifti(volume) for name, volume in volumes(70).items()}
    files = packaged.write(tmp_path / "site", monkeypatch, "toy-brains", contents)
    monkeypatch.setattr(Brain, "sources", dict(zip(volumes(), files, strict=True)))


def test_a_package_of_volumes_is_prepared(installed, tmp_path):
    images, classes = brain.slices(**volumes(70))
    for split, chosen in brain.split(35).items():
        opened = catalogue.open_split("brain", split, data_dir=tmp_path / "prepared", annotations=READ)
        assert opened.classes == ("background", "grey", "white")
        examples = [opened[index] for index in range(len(opened))]
        assert [int(str(example["slice"])) for example in examples] == chosen
        np.testing.assert_array_equal([example["image"][..., 0] for example in examples], images[chosen])
        np.testing.assert_array_equal([example["class_map"] for example in examples], classes[chosen])


def test_what_is_absent_is_said_and_nothing_is_written(tmp_path, monkeypatch):
    (file,) = packaged.write(tmp_path / "site", monkeypatch, "toy-brains", {"toy_brains/a": b"a"})
    settings = {"name": "brain", "data_dir": str(tmp_path / "prepared")}
    monkeypatch.setattr(Brain, "sources", {"t1": file})
    monkeypatch.setitem(sys.modules, "nibabel", None)
    for action in (data.check, lambda settings: data.load(settings, seed=0)):
        with pytest.raises(UserError, match=r"data.name='brain': nibabel, .* is absent: pip install nibabel$"):
            action(settings)
    packaged.write(tmp_path / "first", monkeypatch, "toy-brains", {"toy_brains/a": b"a"}, version="2.0")
    with pytest.raises(UserError, match=r"'brain': toy-brains 2\.0 is installed, .* --no-deps toy-brains==1\.0$"):
        data.check(settings)
    assert not (tmp_path / "prepared").exists()
