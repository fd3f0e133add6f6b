"""Two folders of images compared: the figures are those of the arrays, and folders that will not do are named."""

import sys

import numpy as np
import pytest
from conftest import run_as_main
from PIL import Image

from cvjax import data
from cvjax.errors import UserError
from cvjax.metrics import digits, extractors, generative
from cvjax.metrics.controls import impostors
from cvjax.programs import compare


def write(folder, images):
    folder.mkdir(parents=True)
    for index, image in enumerate(images):
        Image.fromarray(np.round(image * 255).astype(np.uint8).squeeze()).save(folder / f"{index:03d}.png")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """Two folders of digits, one of them with sub-folders, and the arrays of both."""
    root, test = tmp_path_factory.mktemp("folders"), data.arrays("digits", "test")
    samples = np.clip(impostors.draw("Gaussian per class", 0, test["image"], test["label"], 60), 0, 1)
    write(root / "samples" / "a", samples[:40])
    write(root / "samples" / "b", samples[40:])
    write(root / "real", test["image"][:50])
    return root, samples, test["image"][:50]


def test_figures_are_those_of_the_arrays(folders, monkeypatch):
    root, samples, real = folders
    monkeypatch.setattr(compare, "CHUNK", 16)
    figures = compare.compare(root / "samples", root / "real", "digits", interval=True)
    bytes_of = np.round(samples * 255).astype(np.float32) / 255
    (found, probabilities), (reference, _) = digits.features(bytes_of), digits.features(real)
    expected = {"samples": 60, "reference": 50, **extractors.evaluate(found, reference, probabilities)}
    assert figures.keys() == expected.keys() | {"fid_low", "fid_high", "fid_infinity"}
    score = expected.pop("inception_score")  # of other splits
    assert figures["inception_score"] == pytest.approx(score, rel=0.2)
    for name, value in expected.items():
        assert figures[name] == pytest.approx(value, rel=1e-3, abs=1e-4), name  # float32 features
    interval = figures["fid_low"], figures["fid_high"]
    assert interval == pytest.approx(generative.fid_interval(found, reference), rel=1e-2)
    assert figures["fid_infinity"] == pytest.approx(generative.fid_infinity(found, reference), rel=1e-2)


def test_thumbnails_are_in_colour(folders):
    root, samples, real = folders
    figures = compare.compare(root / "samples", root / "real", "pixels")
    three = (np.repeat(images, 3, axis=-1) for images in (np.round(samples * 255) / 255, real))
    expected = generative.fid(*map(generative.thumbnails, three))
    assert figures["fid"] == pytest.approx(expected, rel=1e-5) and "inception_score" not in figures


def test_folders_that_will_not_do_are_named(folders, tmp_path):
    root, *_ = folders
    with pytest.raises(UserError, match=r"--reference=.*nowhere is not a folder of images"):
        compare.compare(root / "real", tmp_path / "nowhere", "pixels")
    Image.new("L", (8, 8)).save(tmp_path / "a.png")
    Image.new("L", (16, 8)).save(tmp_path / "b.png")
    with pytest.raises(UserError, match=r"b\.png is 16 x 8 pixels, a\.png 8 x 8: resize"):
        compare.compare(tmp_path, root / "real", "pixels")
    (tmp_path / "b.png").write_bytes(b"nothing")
    with pytest.raises(UserError, match=r"b\.png cannot be read as an image"):
        compare.compare(tmp_path, root / "real", "pixels")
    (tmp_path / "b.png").unlink()
    with pytest.raises(UserError, match=r"k=3 takes more images of each kind: 1 and 50"):
        compare.compare(tmp_path, root / "real", "pixels")


def test_command(folders, monkeypatch, capsys):
    root, *_ = folders

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["compare", *arguments])
        monkeypatch.delitem(sys.modules, "cvjax.programs.compare", raising=False)
        with pytest.raises(SystemExit) as exit:
            run_as_main("cvjax.programs.compare")
        return exit.value.code

    assert not run(f"--samples={root / 'samples'}", f"--reference={root / 'real'}")
    printed = dict(line.split() for line in capsys.readouterr().out.splitlines())
    expected = compare.compare(root / "samples", root / "real", "pixels")
    assert {name: float(value) for name, value in printed.items()} == pytest.approx(expected, rel=1e-4)
    assert run(f"--samples={root / 'samples'}") == 1 and "--reference" in capsys.readouterr().err
    assert run(f"--samples={root}", f"--reference={root / 'real'}", "--features=digit") == 1
    assert "Did you mean 'digits'?" in capsys.readouterr().err
