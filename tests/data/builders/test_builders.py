"""The builders over what the dependencies ship: right pixels, fixed splits, no TensorFlow, safe side by side."""

import hashlib
import importlib.resources
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image
from sklearn import datasets

from cvjax import data
from cvjax.data import builders
from cvjax.data.builders import Digits, Photos, photos, textures
from cvjax.errors import UserError

SIZES = {"train": 1297, "test": 500}
ROOT = pathlib.Path(__file__).resolve().parents[3]


def digit_rows(split):
    source = Digits.prepared().as_data_source(split)
    return [int(example["id"].decode()) for example in source]


def test_digits_give_their_seventeen_grey_levels_back():
    for split in ("train", "test"):
        digits = data.arrays("digits", split)
        rows = digit_rows(split)
        reference = datasets.load_digits()
        np.testing.assert_array_equal(np.round(digits["image"][..., 0] * 16), reference.images[rows])
        np.testing.assert_array_equal(digits["label"], reference.target[rows])


def test_digits_are_split_once_and_for_all():
    train, test = digit_rows("train"), digit_rows("test")
    assert sorted(train + test) == list(range(1797))
    assert {"train": len(train), "test": len(test)} == SIZES
    shares = [np.bincount(data.arrays("digits", split)["label"]) / size for split, size in SIZES.items()]
    np.testing.assert_allclose(*shares, atol=0.002)  # stratified: one example is 0.002 of the test split
    # Figures and frozen weights depend on the split: scikit-learn must not change it unnoticed.
    assert hashlib.sha256(np.sort(test).astype(np.int32).tobytes()).hexdigest()[:16] == "6164bdc716e91bcc"


def test_photos_are_whole_crops_of_photographs_that_the_splits_do_not_share():
    assert not set(photos.TRAIN) & set(photos.TEST)
    seen = {}
    for split, photographs in (("train", photos.TRAIN), ("test", photos.TEST)):
        crops = data.arrays("photos", split)
        names = Photos.prepared().info.features["label"].names
        seen[split] = {names[label] for label in crops["label"]}
        assert seen[split] == set(photographs)
        for name, (package, file) in photographs.items():
            with (importlib.resources.files(package) / file).open("rb") as opened:
                photograph = np.asarray(Image.open(opened).convert("RGB"))
            rows, columns = photograph.shape[0] // 64, photograph.shape[1] // 64
            mosaic = crops["image"][crops["label"] == names.index(name)].reshape(rows, columns, 64, 64, 3)
            mosaic = mosaic.transpose(0, 2, 1, 3, 4).reshape(64 * rows, 64 * columns, 3)
            np.testing.assert_array_equal(np.round(mosaic * 255), photograph[: 64 * rows, : 64 * columns])


def test_a_variant_sets_the_size_of_the_crops():
    loaded = data.load({"name": "photos/128", "batch": 4}, seed=0)
    assert next(loaded.train())["image"].shape == (4, 128, 128, 3)
    with pytest.raises(UserError, match="'64'"):
        data.load({"name": "photos/65"}, seed=0)


def test_whole_photographs_lie_in_their_order():
    whole = dict(name="photos/whole", train_split="test[1:2]", eval_split="test[1:2]", batch=1)
    [chelsea] = data.load(whole, seed=0).evaluate()
    np.testing.assert_array_equal(np.round(chelsea["image"][0] * 255), photos.read("chelsea"))
    assert chelsea["label"] == list(photos.TRAIN | photos.TEST).index("chelsea")


def test_textures_are_the_same_in_both_splits():
    resize = (dict(op="resize", size=16),)
    loaded = data.load(dict(name="textures", batch=4, eval_transforms=resize, transforms=resize), seed=0)
    assert loaded.info["classes"] == tuple(textures.PICTURES) and loaded.info["examples"] == {"train": 4, "test": 4}
    [batch], train = loaded.evaluate(), next(loaded.train())
    np.testing.assert_array_equal(batch["label"], range(4))
    np.testing.assert_array_equal(train["image"][np.argsort(train["label"])], batch["image"])


def test_names_are_what_loads_without_a_download():
    assert {"digits", "photos", "photos/64", "photos/32", "photos/128", "digit_scenes"} <= set(builders.names())
    for name in builders.names():
        data.check({"name": name})


def test_two_processes_prepare_at_once_say_one_line_and_need_no_tensorflow(tmp_path):
    program = (
        "import sys; from cvjax import data; "
        f"loaded = data.load(dict(name='photos', data_dir={str(tmp_path)!r}, in_memory=False, batch=8), seed=0); "
        "train = loaded.train(); [next(train) for _ in range(3)]; "
        "print(loaded.info['examples'], 'tensorflow' in sys.modules)"
    )
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        for _ in range(2)
    ]
    for process in running:
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert out == "{'train': 647, 'test': 220} False\n"
        assert [line for line in err.splitlines() if not line.startswith("Preparing the dataset photos")] == []
    left = [path.name for path in tmp_path.rglob("*incomplete*")]
    assert left == []


def test_a_process_that_comes_second_uses_what_the_first_has_prepared(tmp_path, monkeypatch):
    prepare = Digits.download_and_prepare

    def overtaken(builder):
        generate = builder._generate_examples
        monkeypatch.setattr(Digits, "download_and_prepare", prepare)

        def late(rows):
            Digits.prepared(data_dir=tmp_path)
            return generate(rows)

        builder._generate_examples = late
        builder.download_and_prepare()

    monkeypatch.setattr(Digits, "download_and_prepare", overtaken)
    assert Digits.prepared(data_dir=tmp_path).info.splits["test"].num_examples == 500
    assert len(list((tmp_path / "digits").iterdir())) == 1


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("not a folder")
    with pytest.raises(UserError, match=r"cannot be prepared.*TFDS_DATA_DIR"):
        data.load({"name": "digits", "data_dir": str(blocked)}, seed=0)
