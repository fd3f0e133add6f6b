"""Folders whose images come in pairs: in two folders, side by side, or as copies that colours part from."""

import json

import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import vocabulary
from cvjax.errors import UserError

FLIPS = (dict(op="flip"), dict(op="random_crop", size=(4, 6)), dict(op="rotate", degrees=40.0))


def picture(seed, channels=3, size=(6, 8)):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.squeeze()).save(path)


def load(path, images, **settings):
    chosen = {"folder": str(path), "batch": 4, "train_split": "train", "images": images, **settings}
    data.check(chosen)
    return data.load(chosen, seed=0)


@pytest.fixture
def pairs(tmp_path):
    """Two folders of five pairs in each split: the second is the negative of the first, its files of another kind."""
    for split in ("train", "test"):
        for index in range(5):
            pixels = picture(index)
            save(tmp_path / "photos" / split / "sub" / f"{index}.png", pixels)
            save(tmp_path / "maps" / split / "sub" / f"{index}.bmp", 255 - pixels)
    return tmp_path


@pytest.mark.parametrize("in_memory", [True, False])
def test_pairs_move_alike(pairs, in_memory):
    for transforms in ((), FLIPS[:2]):
        target = {"target": str(pairs / "maps")}
        train = load(pairs / "photos", target, transforms=transforms, in_memory=in_memory).train()
        for _ in range(3):
            batch = next(train)
            assert batch["target"].dtype == np.float32
            np.testing.assert_allclose(batch["target"], 1 - batch["image"], atol=1e-6)


def test_the_first_image_is_what_it_would_be_alone(pairs):
    both = load(pairs / "photos", {"target": str(pairs / "maps")}, transforms=FLIPS).train()
    alone = load(pairs / "photos", {}, transforms=FLIPS).train()
    for _ in range(3):
        np.testing.assert_array_equal(next(both)["image"], next(alone)["image"])


def test_colours_change_only_what_is_named(pairs):
    target = {"target": str(pairs / "maps")}

    def loaded(**names):
        jitter = dict(op="color_jitter", brightness=0.4, contrast=0.4, saturation=0.4, hue=0.2, **names)
        return next(load(pairs / "photos", target, transforms=(jitter, dict(op="flip"))).train())

    plain = next(load(pairs / "photos", target, transforms=(dict(op="color_jitter"), dict(op="flip"))).train())
    first, second, both = loaded(), loaded(images=("target",)), loaded(images=("image", "target"))
    assert (first["image"] != plain["image"]).any()
    np.testing.assert_array_equal(first["target"], plain["target"])
    np.testing.assert_array_equal(second["image"], plain["image"])
    np.testing.assert_array_equal(both["image"], first["image"])  # the same draws, whatever else is named
    np.testing.assert_array_equal(both["target"], second["target"])


def test_a_copy_keeps_the_colours_that_the_image_loses(pairs):
    grey = [dict(op="grayscale"), dict(op="flip")]
    batch = next(load(pairs / "photos", {"colours": "image"}, transforms=grey, eval_transforms=grey).train())
    assert batch["image"].shape == (4, 6, 8, 1)
    assert batch["colours"].shape == (4, 6, 8, 3)
    luma = batch["colours"] @ np.float32([0.299, 0.587, 0.114])
    np.testing.assert_allclose(batch["image"][..., 0], luma, atol=1e-6)


@pytest.mark.parametrize("side", ["left", "right"])
def test_halves_are_taken_in_either_direction(tmp_path, side):
    for index in range(10):
        pixels = picture(index)
        save(tmp_path / f"{index}.png", np.concatenate([pixels, 255 - pixels // 2], axis=1))
    loaded = load(tmp_path, {"target": side}, eval_split="train")
    assert loaded.info["shape"] == (6, 8, 3)
    batch = next(loaded.evaluate())
    first, second = (batch["image"], batch["target"]) if side == "right" else (batch["target"], batch["image"])
    np.testing.assert_array_equal(np.round(second * 255), 255 - np.round(first * 255) // 2)


def test_each_image_has_the_channels_of_its_folder(pairs):
    for split in ("train", "test"):
        for index in range(5):
            save(pairs / "edges" / split / "sub" / f"{index}.png", picture(index, 1))
    jitter = dict(op="color_jitter", hue=0.1, images=["image"])
    batch = next(load(pairs / "photos", {"target": str(pairs / "edges")}, transforms=[jitter]).train())
    assert batch["target"].shape == (4, 6, 8, 1)
    with pytest.raises(UserError, match=r"transforms\[0\].*needs an image of three channels, not 1"):
        load(pairs / "photos", {"target": str(pairs / "edges")}, transforms=[{**jitter, "images": ["target"]}])


TOKENISE = dict(op="tokenise", length=6)


def test_captions_are_read_beside_the_images(pairs):
    written = {f"{split}/sub/{index}.png": f"Picture {index}." for split in ("train", "test") for index in range(5)}
    written["train/sub/3.png"] = ["Picture 3.", "Another picture"]
    (pairs / "photos" / "captions.json").write_text(json.dumps(written), encoding="utf-8-sig")  # as Windows writes it
    transforms = [dict(op="random_text"), TOKENISE]
    settings = dict(keep=("caption",), transforms=transforms, eval_transforms=[TOKENISE], batch=5)
    loaded = load(pairs / "photos", {"target": str(pairs / "maps")}, **settings)
    assert loaded.vocabulary.words[4:] == ("picture", ".", "0", "1", "2", "3", "4", "another")
    batch = next(loaded.evaluate())
    np.testing.assert_allclose(batch["target"], 1 - batch["image"], atol=1e-6)
    for index in range(5):
        assert vocabulary.decode(batch["tokens"][index], loaded.vocabulary) == f"picture {index} ."
    train = loaded.train()
    seen = {vocabulary.decode(tokens, loaded.vocabulary) for _ in range(8) for tokens in next(train)["tokens"]}
    assert seen == {*(f"picture {index} ." for index in range(5)), "another picture"}


def test_mistakes_with_captions_are_named(pairs):
    path, settings = pairs / "photos" / "captions.json", dict(transforms=[TOKENISE], eval_transforms=[TOKENISE])

    def refused(message, keep=("caption",), **changed):
        with pytest.raises(UserError, match=message):
            load(pairs / "photos", {}, keep=keep, **{**settings, **changed})

    refused(r"captions\.json cannot be read: No such file")
    path.write_text("{")
    refused(r"captions\.json is not JSON")
    path.write_text("[]")
    refused(r"captions\.json must be an object such as")
    written = {f"{split}/sub/{index}.png": "One." for split in ("train", "test") for index in range(5)}
    path.write_text(json.dumps({**written, "train/sub/2.png": []}))
    refused(r"the caption of 'train/sub/2\.png' must be text or a list of texts, not \[\]")
    path.write_text(json.dumps({f"{name.removeprefix('test/')}": caption for name, caption in written.items()}))
    refused(r"no caption of 'test/sub/0\.png'; its names are paths below .*photos$")
    path.write_text(json.dumps(written))
    refused(r"'caption' is text, .*to data.eval_transforms", eval_transforms=[])
    refused(r"a folder of images has no 'class_map', only 'caption'", keep=("class_map",))


def test_mistakes_with_pairs_are_named(pairs):
    photos, maps = pairs / "photos", pairs / "maps"
    target = {"target": str(maps)}
    for images, message in (
        ({"label": str(maps)}, r"'label' is taken in a batch"),
        ({"target": 3}, r"data.images.target=3 must be text"),
        ({"target": str(pairs / "map")}, r"data.images.target=.*No such file.*Did you mean 'maps'"),
        ({"a": "left", "b": "right"}, r"one half, so name"),
        (
            {"target": "rihgt"},
            r"'rihgt' is neither a folder nor \"left\", .* or \"image\"\. Did you mean 'right'\?$",
        ),
    ):
        with pytest.raises(UserError, match=message):
            load(photos, images)
    for names, message in (
        ("target", r"images='target' must be a list of names"),
        (["traget"], r"data.images has no 'traget'. Did you mean 'target'"),
    ):
        with pytest.raises(UserError, match=message):
            load(photos, target, transforms=[dict(op="adjust_contrast", factor=0.5, images=names)])
    with pytest.raises(UserError, match=r"flip has no argument 'images'"):
        load(photos, target, transforms=[dict(op="flip", images=["target"])])
    save(maps / "train" / "sub" / "1.jpg", picture(0))
    with pytest.raises(UserError, match=r"1\.png needs one counterpart, but there are several: .*1\.bmp, .*1\.jpg"):
        load(photos, target)
    (maps / "train" / "sub" / "1.jpg").unlink()
    save(maps / "train" / "sub" / "1.bmp", picture(0, size=(6, 7)))
    with pytest.raises(UserError, match=r"1\.png is 6x8, and .*1\.bmp, which should move with it, 6x7"):
        load(photos, target)
    (maps / "train" / "sub" / "1.bmp").unlink()
    with pytest.raises(UserError, match=r"1\.png needs one counterpart, but .*maps has no train/sub/1\.png"):
        load(photos, target)
    save(photos / "train" / "sub" / "0.png", picture(0, size=(6, 7)))
    with pytest.raises(UserError, match=r"0\.png is 7 pixels wide, which cannot be halved"):
        load(photos, {"target": "right"})


def test_all_pairs_that_do_not_match_are_listed(pairs):
    photos, maps = pairs / "photos", pairs / "maps"
    for index in range(7):
        save(photos / "train" / "sub" / f"more_{index}.png", picture(index))
        save(maps / "train" / "sub" / f"more_{index}_map.png", picture(index))
    with pytest.raises(UserError) as raised:
        load(photos, {"target": str(maps)})
    message = str(raised.value)
    assert "maps has no train/sub/more_0.png; " in message and "more_4.png" in message
    assert "more_5.png" not in message and "and 2 more" in message
    assert "of no image's name: train/sub/more_0_map, " in message
    assert "sub/1" not in message and "sub/0" not in message  # these have their counterparts, in the other split too
    for index in range(7):
        (maps / "train" / "sub" / f"more_{index}_map.png").rename(maps / "train" / "sub" / f"more_{index}.png")
    for index in (1, 3):
        save(maps / "train" / "sub" / f"more_{index}.png", picture(index, size=(6, 9)))
    target = {"target": str(maps)}
    with pytest.raises(
        UserError, match=r"more_1\.png is 6x8.*more_1\.png.*6x9; .*more_3\.png is 6x8.*more_3\.png.*6x9"
    ):
        load(photos, target)
    assert load(photos, target, on_corrupt="skip").info["examples"]["train"] == 10


def test_a_folder_that_holds_both_kinds_is_told_from_that_of_the_images(pairs, monkeypatch):
    for index in range(20):
        save(pairs / "mine" / "a" / f"{index}.png", picture(index))
        save(pairs / "mine" / "b" / f"{index}.png", picture(index))
    with pytest.raises(UserError, match=r"mine/b' lies in data\.folder=.*such as data\.folder=.*/mine/a$"):
        load(pairs / "mine", {"target": str(pairs / "mine" / "b")})
    assert load(pairs / "mine" / "a", {"target": str(pairs / "mine" / "b")}).info["examples"]
    save(pairs / "photos" / "train" / "masks" / "0.png", picture(0))
    with pytest.raises(UserError, match=r"masks' lies in .*such as data\.folder=.*/photos/train/sub$"):
        load(pairs / "photos", {"target": str(pairs / "photos" / "train" / "masks")})
    monkeypatch.chdir(pairs)
    with pytest.raises(UserError, match=r"target='map' is neither a folder nor .*Did you mean 'maps'\?$"):
        load("photos", {"target": "map"})


def test_pairs_of_any_kind_of_file(tmp_path):
    """Transparent images on white, targets of 16 bits by their upper eight; a grey one among colours is made RGB."""
    levels = np.arange(48, dtype=np.uint16).reshape(6, 8) * 1000
    for file in (f"{split}/{index}.png" for split in ("train", "test") for index in range(4)):
        clear = np.concatenate([picture(0), np.zeros((6, 8, 1), np.uint8)], axis=-1)
        save(tmp_path / "a" / file, picture(1, 1) if file.endswith("0.png") else clear)
        save(tmp_path / "b" / file, levels)
    batch = next(load(tmp_path / "a", {"target": str(tmp_path / "b")}).evaluate())
    assert batch["image"].shape == (4, 6, 8, 3) and batch["target"].shape == (4, 6, 8, 1)
    assert sorted(batch["image"].min(axis=(1, 2, 3)) == 1) == [False, True, True, True]
    np.testing.assert_array_equal(np.round(255 * batch["target"][0, ..., 0]), levels >> 8)
