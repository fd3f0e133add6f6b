"""A user's folder of images, with whatever users put there."""

import itertools
import os
import shutil
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import folder
from cvjax.data.splits import HeldOut
from cvjax.errors import UserError


def write(path, size=(8, 6), color=(10, 20, 30), mode="RGB", **options):
    """Saves an image of one colour; `size` is (width, height)."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new(mode, size, color).save(path, **options)
    return path


def load(path, **settings):
    return data.load({"folder": str(path), "batch": 4, **settings}, seed=0)


def everything(loaded):
    batches = list(loaded.evaluate())
    return {key: np.concatenate([batch[key][batch["valid"]] for batch in batches]) for key in batches[0]}


def test_classes_are_sub_folders_and_splits_are_as_they_are(tmp_path):
    for split, count in (("train", 6), ("val", 3)):
        for index in range(count):
            write(tmp_path / split / "cat" / "deeper" / f"{index}.png", color=(255, 0, 0))
            write(tmp_path / split / "dog" / f"{index}.JPG", color=(0, 0, 255))
    loaded = load(tmp_path, eval_split="val")
    assert loaded.info["classes"] == ("cat", "dog")
    assert loaded.info["examples"] == {"train": 12, "val": 6}
    assert loaded.info["shape"] == (6, 8, 3)
    rows = everything(loaded)
    np.testing.assert_array_equal(rows["image"].mean((1, 2)).argmax(-1) == 2, rows["label"] == 1)
    with pytest.raises(UserError, match=r"eval_split='test'.*Known: train, val"):
        load(tmp_path)


def test_without_splits_a_tenth_is_held_out_by_hash(tmp_path):
    for index in range(50):
        write(tmp_path / f"{index}.png", color=(index, 0, 0))
    loaded = load(tmp_path)
    assert loaded.info["examples"] == {"train": 45, "test": 5}
    assert loaded.info["classes"] == ()
    train, test = (folder.open_split(tmp_path, split) for split in ("train", "test"))
    assert sorted(path.name for path in (*train.files, *test.files)) == sorted(f"{index}.png" for index in range(50))
    moved = tmp_path / "moved"
    for path in list(tmp_path.glob("*.png")):
        moved.mkdir(exist_ok=True)
        path.rename(moved / path.name)
    assert [path.name for path in folder.open_split(moved, "test").files] == [path.name for path in test.files]
    assert "label" not in next(load(moved).train())


def test_hidden_files_and_other_files_are_passed_over(tmp_path):
    for index in range(10):
        write(tmp_path / "images" / f"{index}.png")
    write(tmp_path / ".hidden.png")
    write(tmp_path / "__MACOSX" / "x.png")
    (tmp_path / "notes.txt").write_text("notes")
    assert sum(load(tmp_path).info["examples"].values()) == 10


def test_grey_folders_keep_one_channel_and_mixed_ones_become_rgb(tmp_path):
    for index in range(10):
        write(tmp_path / "grey" / f"{index}.png", mode="L", color=100)
        write(tmp_path / "mixed" / f"{index}.png", **({"mode": "L", "color": 100} if index else {}))
    assert load(tmp_path / "grey").info["shape"] == (6, 8, 1)
    rows = everything(load(tmp_path / "mixed", eval_split="train"))["image"]
    assert rows.shape[1:] == (6, 8, 3)
    np.testing.assert_allclose(np.unique(rows, axis=0)[-1], 100 / 255, rtol=1e-6)


@pytest.mark.parametrize(
    ("mode", "color", "expected"),
    [
        ("I;16", 100 * 256 + 7, (100,)),
        ("I;16", 65535, (255,)),
        ("1", 1, (255,)),
        ("P", 0, (0, 0, 0)),
        ("RGBA", (200, 0, 0, 0), (255, 255, 255)),
        ("RGBA", (200, 0, 0, 255), (200, 0, 0)),
        ("LA", (50, 0), (255,)),
    ],
)
def test_pixels_of_every_kind_come_out_as_they_look(tmp_path, mode, color, expected):
    path = write(tmp_path / "x.png", mode=mode, color=color)
    pixels = folder.decode(path, len(expected))
    assert pixels.shape == (6, 8, len(expected))
    np.testing.assert_array_equal(pixels, np.broadcast_to(np.uint8(expected), pixels.shape))


@pytest.mark.parametrize("kind", ["webp", "tiff", "jpg", "png"])
def test_the_camera_held_sideways_is_put_upright(tmp_path, kind):
    upright = np.random.default_rng(0).integers(0, 255, (4, 6, 3), np.uint8)
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    for index in range(10):
        Image.fromarray(np.rot90(upright)).save(tmp_path / f"{index}.{kind}", exif=exif, lossless=True)
    source = folder.open_split(tmp_path, "train")
    assert source.shape(0) == (4, 6, 3)
    decoded = source[0]["image"]
    assert decoded.shape == (4, 6, 3)
    if kind != "jpg":
        np.testing.assert_array_equal(decoded, upright)


def test_images_of_two_sizes_are_named_with_what_would_mend_it(tmp_path):
    for index in range(10):
        write(tmp_path / f"{index}.png", size=(8, 6) if index != 7 else (9, 6))
    settings = {"folder": str(tmp_path), "batch": 2}
    with pytest.raises(UserError, match=r"0\.png is 6x8x3 .*7\.png is 6x9x3.*resize") as caught:
        data.check(settings)
    resize = dict(op="resize", size=(4, 4))
    assert "resize" in str(caught.value)
    data.check({**settings, "transforms": [resize], "eval_transforms": [resize]})
    for in_memory in (True, False):
        loaded = load(tmp_path, transforms=[resize], eval_transforms=[resize], in_memory=in_memory)
        assert next(loaded.train())["image"].shape == (4, 4, 4, 3)
    with pytest.raises(UserError, match=r"data\.transforms\[0\].*10x10.*fails on .*0\.png \(6x8x3\)|larger than"):
        data.check({**settings, "transforms": [dict(op="random_crop", size=(10, 10))]})


def broken(tmp_path):
    """Makes a folder of ten good images and three that are not."""
    for index in range(10):
        write(tmp_path / ("train" if index < 9 else "test") / f"good{index}.png", size=(64, 64), color=(index, 0, 0))
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)
    whole = tmp_path / "train" / "truncated.png"
    Image.fromarray(noise).save(whole)
    whole.write_bytes(whole.read_bytes()[:4000])
    (tmp_path / "train" / "text.png").write_text("not an image")
    write(tmp_path / "train" / "bomb.png", size=(100, 80), mode="1", color=0)
    return tmp_path


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_files_that_cannot_be_decoded_are_named(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    broken(tmp_path)
    with pytest.raises(UserError, match=r"(bomb|text)\.png cannot be read as an image"):
        data.check({"folder": str(tmp_path), "batch": 2})
    for name, reason in (
        ("bomb", "more than 5,000 pixels"),
        ("text", "no known image format"),
        ("truncated", "truncated"),
    ):
        with pytest.raises(UserError, match=rf"{name}\.png cannot be read as an image: .*{reason}.*on_corrupt"):
            folder.decode(tmp_path / "train" / f"{name}.png", 3)
    for name in ("bomb", "text"):
        (tmp_path / "train" / f"{name}.png").unlink()
    for in_memory in (True, False):
        with pytest.raises(UserError, match=r"truncated\.png"):
            loaded = load(tmp_path, in_memory=in_memory)
            list(itertools.islice(loaded.train(), 4))


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("in_memory", [True, False])
def test_corrupt_files_are_skipped_counted_and_named_when_that_is_wished(tmp_path, monkeypatch, capsys, in_memory):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    loaded = load(broken(tmp_path), on_corrupt="skip", in_memory=in_memory)
    total = sum(loaded.info["examples"].values())
    assert total == 10
    report = capsys.readouterr().err
    assert "Skipping" in report
    assert all(f"{name}.png" in report for name in ("bomb", "text", "truncated"))
    train = loaded.train()
    count = loaded.info["examples"]["train"]
    reds = np.concatenate([next(train)["image"][:, 0, 0, 0] for _ in range(count)])[:count]  # an epoch and more
    assert len(np.unique(reds)) == count


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: root / "nothing", "data.folder=.*nothing': No such file or directory"),
        (lambda root: root / "imagse", "Did you mean 'images'"),
        (lambda root: root, "holds no images"),
    ],
)
def test_a_missing_or_empty_folder(tmp_path, make, message):
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match=message):
        data.check({"folder": str(make(tmp_path))})


def test_an_image_beside_the_class_folders_has_no_class(tmp_path):
    for index in range(5):
        write(tmp_path / "cat" / f"{index}.png")
    stray = write(tmp_path / "stray.png")
    with pytest.raises(UserError, match=rf"{stray} has no class"):
        data.check({"folder": str(tmp_path)})


def test_classes_are_those_of_the_training_images(tmp_path):
    for split, name in (("train", "cat"), ("train", "dog"), ("val", "cat"), ("test", "dgo")):
        write(tmp_path / split / name / "1.png")
    assert load(tmp_path, eval_split="val").info["classes"] == ("cat", "dog")  # whatever lies in the split not used
    with pytest.raises(UserError, match=r"test.dgo.1\.png is of class 'dgo', of which the training.* mean 'dog'"):
        data.check({"folder": str(tmp_path)})


def test_a_folder_that_may_not_be_read_is_not_passed_over(tmp_path, monkeypatch):
    def walk(root, onerror, **options):  # root, who may read everything, runs tests too
        onerror(PermissionError(13, "Permission denied", str(root / "closed")))
        return iter(())

    monkeypatch.setattr(folder.os, "walk", walk)
    with pytest.raises(UserError, match=r"folder .*closed cannot be read: Permission denied"):
        folder.list_images(tmp_path)


def test_evaluation_may_have_classes_that_training_lacks(tmp_path):
    for split, name in (("train", "b"), ("train", "d"), ("test", "a"), ("test", "c"), ("val", "e")):
        write(tmp_path / split / name / "1.png", color=(ord(name), 0, 0))
    with pytest.raises(UserError, match=r"of class 'a', of which .*data\.unseen_classes=True allows it"):
        data.check({"folder": str(tmp_path)})
    settings = {"folder": str(tmp_path), "unseen_classes": True}
    assert data.check(settings) == ("b", "d")  # what a classifier of the training images tells apart
    loaded = load(tmp_path, unseen_classes=True)
    assert loaded.info["classes"] == ("b", "d")
    assert set(next(loaded.train())["label"]) == {0, 1}
    rows = everything(loaded)
    names = [chr(round(red * 255)) for red in rows["image"][:, 0, 0, 0]]
    assert dict(zip(names, rows["label"].tolist(), strict=True)) == {"a": 2, "c": 3}
    write(tmp_path / "test" / "b" / "1.png")
    with pytest.raises(UserError, match=r"the classes b in the training images and in 'test': with data\.unseen_cl"):
        load(tmp_path, unseen_classes=True)


def test_of_few_unseen_classes_two_are_held_out(tmp_path):
    for name in "abcd":
        write(tmp_path / name / "1.png")
    test = folder.open_split(tmp_path, "test", held_out=HeldOut(by_class=True))
    assert len(set(test.labels)) == 2
    for name in "ab":
        shutil.rmtree(tmp_path / name)
    with pytest.raises(UserError, match="has only two classes"):
        folder.open_split(tmp_path, "test", held_out=HeldOut(by_class=True))


def test_with_unseen_classes_a_folder_without_splits_is_split_by_class(tmp_path):
    for name in range(25):
        for index in range(3):
            write(tmp_path / f"{name:02d}" / f"{index}.png")
    train, test = (folder.open_split(tmp_path, split, held_out=HeldOut(by_class=True)) for split in ("train", "test"))
    parts = [{file.parent.name for file in source.files} for source in (train, test)]
    assert not parts[0] & parts[1]
    assert [len(part) for part in parts] == [23, 2]
    assert (len(train), len(test)) == (69, 6)
    assert train.classes == tuple(sorted(parts[0]))
    assert test.classes == (*train.classes, *sorted(parts[1]))
    assert sorted(set(test.labels)) == [23, 24]


def test_links_that_lead_up_are_passed_over_and_images_count_once(tmp_path):
    root = tmp_path / "root"
    for label in ("cat", "dog"):
        for index in range(3):
            write(root / label / f"{index}.png")
    write(tmp_path / "outside.png")
    write(tmp_path / "elsewhere" / "1.png")
    (root / "cat" / "back").symlink_to(root)
    (root / "dog" / "further up").symlink_to(tmp_path)
    (root / "fox").symlink_to(tmp_path / "elsewhere")  # a link to other images is a class
    (tmp_path / "elsewhere" / "round").symlink_to(root)  # up by two links
    files = folder.list_images(root)
    assert [file.relative_to(root).as_posix() for file in files] == [
        *(f"{label}/{index}.png" for label in ("cat", "dog") for index in range(3)),
        "fox/1.png",
    ]
    (root / "kitten").symlink_to(root / "cat")
    with pytest.raises(UserError, match=r"root/cat and .*root/kitten are the same folder"):
        folder.list_images(root)


def test_a_link_to_an_image_is_held_out_together_with_it(tmp_path):
    for index in range(40):
        write(tmp_path / f"{index}.png")
        (tmp_path / f"link{index}.png").symlink_to(tmp_path / f"{index}.png")
    train, test = ({file.resolve() for file in folder.open_split(tmp_path, s).files} for s in ("train", "test"))
    assert len(train) == 36 and len(test) == 4 and not train & test


def test_names_whose_bytes_are_not_utf_8_can_be_read_and_printed(tmp_path):
    for index in range(12):
        write(tmp_path / os.fsdecode(b"caf\xe9") / f"{index}.png")
    (tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png")).write_text("no image")
    loaded = load(tmp_path, on_corrupt="skip")
    assert loaded.info["classes"] == (r"caf\xe9",)
    source = folder.open_split(tmp_path, "train")
    texts = [source.describe(index) for index in range(len(source))]
    assert all(text.encode() and "caf\\xe9" in text for text in texts)
    with pytest.raises(UserError, match=r"xff\.png cannot be read") as caught:
        folder.decode(tmp_path / os.fsdecode(b"caf\xe9") / os.fsdecode(b"\xff.png"), 3)
    assert str(caught.value).encode()


def test_a_folder_with_too_few_images_to_hold_any_out(tmp_path):
    write(tmp_path / "a" / "1.png")
    with pytest.raises(UserError, match=r"has only one image, too few to hold some out.*train/ and test/"):
        data.check({"folder": str(tmp_path)})
    write(tmp_path / "a" / "2.png")
    data.check({"folder": str(tmp_path)})
    with pytest.raises(UserError, match=r"has only one class, too few"):
        data.check({"folder": str(tmp_path), "unseen_classes": True})


def test_an_empty_name_beside_a_folder_is_none(tmp_path):
    for index in range(10):
        write(tmp_path / f"{index}.png")
    assert data.load({"name": "", "folder": str(tmp_path), "batch": 4}, seed=0).info["examples"]["train"] == 9
    with pytest.raises(UserError, match="neither is set"):
        data.check({"name": "", "folder": ""})


def png(pixels, transparent, bits=16):
    """Encodes grey or RGB pixels by hand, with a transparent colour, as Pillow cannot."""

    def chunk(kind, body):
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    height, width = pixels.shape[:2]
    shifts = np.arange(bits)[::-1]
    rows = b"".join(b"\0" + np.packbits(row[..., None] >> shifts & 1).tobytes() for row in pixels)
    header = struct.pack(">IIBBBBB", width, height, bits, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    key = np.asarray(transparent, ">u2").tobytes()
    parts = [(b"IHDR", header), (b"tRNS", key), (b"IDAT", zlib.compress(rows)), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunk(*part) for part in parts)


def test_sixteen_bits_of_every_kind(tmp_path):
    grey = np.array([[0, 256, 25600], [25601, 65535, 51200]], np.uint16)
    pgm = tmp_path / "x.pgm"
    pgm.write_bytes(b"P5 3 2 65535\n" + grey.astype(">u2").tobytes())
    np.testing.assert_array_equal(folder.decode(pgm, 1)[..., 0], grey >> 8)
    assert folder.count_channels([pgm]) == 1
    file = tmp_path / "x.png"
    file.write_bytes(png(grey, 25600))  # not its neighbour 25601, which has the same upper byte
    np.testing.assert_array_equal(folder.decode(file, 1)[..., 0], [[0, 1, 255], [100, 255, 200]])
    colour = np.stack([grey, grey, np.full_like(grey, 7 * 256)], -1)
    file.write_bytes(png(colour, (25600, 25600, 7 * 256)))
    expected = np.stack([grey >> 8, grey >> 8, np.full_like(grey, 7)], -1)
    expected[0, 2] = 255
    np.testing.assert_array_equal(folder.decode(file, 3), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_the_transparent_grey_of_few_bits_is_white(tmp_path, bits):
    file = tmp_path / "x.png"
    file.write_bytes(png(np.array([[0, 1]], np.uint8), 1, bits))
    np.testing.assert_array_equal(folder.decode(file, 1)[..., 0], [[0, 255]])
    file.write_bytes(png(np.array([[0, 1]], np.uint8), 0, bits))
    np.testing.assert_array_equal(folder.decode(file, 1)[..., 0], [[255, 255 // (2**bits - 1)]])


@pytest.mark.parametrize("where", [b"IDAT", b"IEND"])
def test_the_declared_size_of_a_png_is_turned_wherever_its_orientation_is(tmp_path, where):
    exif = Image.Exif()
    exif[0x0112] = 6
    write(tmp_path / "x.png", exif=exif)
    content = (tmp_path / "x.png").read_bytes()
    start = content.index(b"eXIf") - 4
    end = start + 12 + int.from_bytes(content[start : start + 4])
    rest = content[:start] + content[end:]
    place = rest.index(where) - 4
    (tmp_path / "x.png").write_bytes(rest[:place] + content[start:end] + rest[place:])
    assert folder.read_size(tmp_path / "x.png") == folder.decode(tmp_path / "x.png", 3).shape[:2] == (8, 6)
