"""The program that paints: pairs that `data` reads, splits without a shared photograph, single pictures and videos."""

import re
import shutil

import cv2
import numpy as np
import pytest
from conftest import run_as_main
from PIL import Image

from cvjax import config, data
from cvjax.data.builders import photos
from cvjax.errors import UserError
from cvjax.programs import cartoon, video
from cvjax.translation.cartoon import STYLES, ink, pencil

COUNT = 12


def picture(seed, size=(24, 32), channels=3):
    return np.random.default_rng(seed).integers(0, 256, (*size, channels), np.uint8)


def save(path, pixels, **options):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.squeeze(pixels)).save(path, **options)


@pytest.fixture
def album(tmp_path):
    """Twelve photographs, some in folders, two with the same name."""
    for index in range(COUNT - 3):
        save(tmp_path / f"album/{index}.png", picture(index))
    save(tmp_path / "album/sea/1.png", picture(20))
    save(tmp_path / "album/sea/2.png", picture(21))
    save(tmp_path / "album/sea/2.bmp", picture(22))
    return tmp_path / "album"


def run(album, output, *flags):
    cartoon.main([f"--input={album}", f"--output={output}", *flags])


def names(output, split):
    return sorted(file.name for file in (output / split).iterdir())


def test_pairs_are_read_as_photographs_and_their_cartoons(album, tmp_path, capsys):
    run(album, tmp_path / "out", "--share=0.25")
    assert "12 pairs" in capsys.readouterr().out and len(names(tmp_path / "out", "test")) == 3
    settings = dict(folder=str(tmp_path / "out"), images={"target": "right"}, batch=9, eval_batch=3)
    loaded = data.load(settings, seed=0)
    train, [test] = next(loaded.train()), loaded.evaluate()
    assert train["image"].shape == (9, 24, 32, 3) and loaded.info["classes"] == ()
    for batch in (train, test):
        for image, target in zip(batch["image"], batch["target"], strict=True):
            np.testing.assert_array_equal(target, ink(image))
    seen = {np.round(255 * image).astype(np.uint8).tobytes() for image in (*train["image"], *test["image"])}
    assert seen == {picture(index).tobytes() for index in (*range(9), 20, 21, 22)}  # each once: the splits share none


def test_two_folders_have_the_same_names(album, tmp_path, capsys):
    run(album, tmp_path / "out", "--layout=folders", "--style=pencil")
    photo, drawn = tmp_path / "out/photo", tmp_path / "out/cartoon"
    for split in ("train", "test"):
        assert names(photo, split) == names(drawn, split) != []
    both = sorted([*names(photo, "train"), *names(photo, "test")])
    assert both == sorted([*(f"{index}.png" for index in range(9)), "sea_1.png", "sea_2.bmp.png", "sea_2.png.png"])
    loaded = data.load(dict(folder=str(photo), images={"target": str(drawn)}, batch=4), seed=0)
    batch = next(loaded.train())
    np.testing.assert_array_equal(batch["target"][0], pencil(batch["image"][0]))
    advice = re.search(r"python train.py (.*)", capsys.readouterr().out)[1]
    assert f"--config.data.folder={photo} --config.data.images.target={drawn}" in advice


def test_a_config_learns_from_the_program_s_folder_or_paints_photographs_itself(album, tmp_path):
    shutil.rmtree(album / "sea")  # it would be a class, to which the others do not belong
    run(album, tmp_path / "out")
    for variant, source in (("", tmp_path / "out"), (":filtered", album)):
        chosen = config.as_dict(config.load(f"configs/own_cartoon.py{variant}").data)
        whole = dict(folder=str(source), transforms=(), eval_transforms=())
        batch = next(data.load(chosen | whole, seed=0).train())
        np.testing.assert_array_equal(batch["target"][0], ink(batch["image"][0]))


def test_the_split_is_that_of_the_seed_and_grows_with_the_share(album, tmp_path):
    splits = {}
    for name, flags in {"a": [], "b": ["--seed=0"], "c": ["--seed=3"], "d": ["--share=0.5"]}.items():
        run(album, tmp_path / name, *flags)
        splits[name] = set(names(tmp_path / name, "test"))
        assert not splits[name] & set(names(tmp_path / name, "train"))
    assert splits["a"] == splits["b"] != splits["c"] and len(splits["a"]) == 1
    assert splits["a"] < splits["d"] and len(splits["d"]) == 6


def test_splits_of_the_input_stay(tmp_path):
    for split, seed in (("train", 0), ("test", 1), ("val", 2)):
        save(tmp_path / f"in/{split}/x.png", picture(seed))
    run(tmp_path / "in", tmp_path / "out")
    for split in ("train", "test", "val"):
        assert names(tmp_path / "out", split) == ["x.png"]
    with pytest.raises(UserError, match=r"has splits of its own, test, train, val\. Leave them out"):
        run(tmp_path / "in", tmp_path / "other", "--share=0.2")


def test_names_are_unique():
    paths = [cartoon.Path(path) for path in ("a/b.png", "a_b.png", "a/b.jpg", "c.png")]
    assert cartoon.name_pairs(paths) == ["a_b.png", "a_b", "a_b.jpg", "c"]
    paths = [cartoon.Path(path) for path in ("a/b.png", "a_b.jpg", "a_b_.png")]
    assert cartoon.name_pairs(paths) == ["a_b", "a_b_", "a_b__"]


def test_the_same_call_replaces_its_pairs_and_no_other_call_mixes_with_them(album, tmp_path):
    output = tmp_path / "out"
    run(album, output)
    before = {file: file.stat().st_mtime_ns for file in output.rglob("*.png")}
    run(album, output)
    after = {file: file.stat().st_mtime_ns for file in output.rglob("*.png")}
    assert before.keys() == after.keys() and all(after[file] > before[file] for file in before)
    with pytest.raises(UserError, match=r"is a pair of an earlier call and would be read as one of these 12\. Remove"):
        run(album, output, "--share=0.5")
    save(output / "train/mine.png", picture(0))
    with pytest.raises(UserError, match=r"train/mine\.png is somebody else's"):
        run(album, output)


def test_files_of_others_are_not_overwritten(album, tmp_path):
    for file in ("train/3.png", "test/3.png"):
        save(tmp_path / "out" / file, picture(50))
    with pytest.raises(UserError, match=r"3\.png would be overwritten, and is not from an earlier call"):
        run(album, tmp_path / "out")
    assert len(list((tmp_path / "out").rglob("*.png"))) == 2  # nothing has been written


def test_an_output_within_the_input_is_no_input_of_the_next_call(album):
    for _ in range(2):
        run(album, album / "pairs")
        assert len(list((album / "pairs").rglob("*.png"))) == COUNT
    with pytest.raises(UserError, match="is the input folder"):
        run(album, album)
    with pytest.raises(UserError, match="holds no images"):
        run(album / "pairs/train", album / "pairs")


def test_copies_and_what_cannot_be_read_are_left_out_and_listed(album, tmp_path, capsys):
    (album / "copy.png").write_bytes((album / "4.png").read_bytes())
    (album / "text.jpg").write_text("no picture")
    cut = (album / "5.png").read_bytes()
    (album / "cut.png").write_bytes(cut[: len(cut) // 2])
    with pytest.raises(cartoon.LeftOut) as raised:
        run(album, tmp_path / "out")
    assert "12 pairs" in capsys.readouterr().out  # written all the same
    message = str(raised.value)
    assert message.startswith("3 pictures left out: ") and "copy.png is a copy of" in message
    assert "text.jpg cannot be read as an image" in message and "cut.png cannot be read" in message


def test_a_split_without_a_readable_photograph_is_said(tmp_path):
    save(tmp_path / "in/train/x.png", picture(0))
    (tmp_path / "in/test").mkdir()
    (tmp_path / "in/test/x.png").write_text("no picture")
    with pytest.raises(UserError, match=r"has no pair for test\. 1 picture left out: .*x\.png") as raised:
        run(tmp_path / "in", tmp_path / "out")
    assert not isinstance(raised.value, cartoon.LeftOut)


def test_every_kind_of_file_becomes_rgb_of_eight_bits(tmp_path):
    grey, deep = picture(0, channels=1), picture(1, channels=1).astype(np.uint16) * 257
    save(tmp_path / "in/grey.png", grey)
    save(tmp_path / "in/deep.png", deep)
    save(tmp_path / "in/alpha.png", np.concatenate([picture(2), np.zeros((24, 32, 1), np.uint8)], axis=2))
    turned = Image.Exif()
    turned[0x0112] = 6
    save(tmp_path / "in/turned.jpg", picture(3), exif=turned)
    run(tmp_path / "in", tmp_path / "out", "--layout=folders")
    found = {file.stem: np.asarray(Image.open(file)) for file in (tmp_path / "out/photo").rglob("*.png")}
    np.testing.assert_array_equal(found["grey"], np.repeat(grey, 3, axis=2))
    np.testing.assert_array_equal(found["deep"], np.repeat(picture(1, channels=1), 3, axis=2))
    assert (found["alpha"] == 255).all()  # transparent pixels are white
    assert found["turned"].shape == (32, 24, 3)


def test_a_size_cuts_squares_from_the_middle(tmp_path):
    thirds = np.zeros((40, 120, 3), np.uint8)
    thirds[:, 40:60], thirds[:, 60:80] = 100, 200  # the square in the middle
    save(tmp_path / "in/a.png", thirds)
    save(tmp_path / "in/b.png", picture(0, size=(10, 12)))
    run(tmp_path / "in", tmp_path / "out", "--size=20", "--layout=folders")
    found = {file.stem: np.asarray(Image.open(file)) for file in (tmp_path / "out/photo").rglob("*.png")}
    assert {one.shape for one in found.values()} == {(20, 20, 3)}
    assert abs(found["a"][:, 3:8] - 100.0).max() < 5 and abs(found["a"][:, 12:17] - 200.0).max() < 5


def test_without_an_input_the_embedded_photographs_are_painted_in_their_splits(tmp_path, monkeypatch):
    monkeypatch.setitem(STYLES_OF_TEST, "ink", lambda picture: 255 - picture)
    monkeypatch.setattr(cartoon, "STYLES", STYLES_OF_TEST)
    cartoon.main([f"--output={tmp_path / 'out'}", "--size=16"])
    for split, named in (("train", photos.TRAIN), ("test", photos.TEST)):
        assert names(tmp_path / "out", split) == sorted(f"{name}.png" for name in named)
    pair = np.asarray(Image.open(tmp_path / "out/test/chelsea.png"))
    np.testing.assert_array_equal(pair[:, :16], cartoon.fit(photos.read("chelsea"), 16))
    np.testing.assert_array_equal(pair[:, 16:], 255 - pair[:, :16])
    with pytest.raises(UserError, match="the embedded ones have their splits"):
        cartoon.main([f"--output={tmp_path / 'other'}", "--share=0.5"])


STYLES_OF_TEST = dict(STYLES)


def test_a_single_picture_is_painted(tmp_path):
    save(tmp_path / "in.png", picture(0))
    for _ in range(2):
        run(tmp_path / "in.png", tmp_path / "out.png", "--style=pencil")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "out.png")), pencil(picture(0)))
    with pytest.raises(UserError, match=r"in\.png would be overwritten"):
        run(tmp_path / "in.png", tmp_path / "in.png")
    with pytest.raises(UserError, match=r"a picture is written as \.png"):
        run(tmp_path / "in.png", tmp_path / "out.jpg")
    with pytest.raises(UserError, match=r"--size=16 is for pairs of a folder"):
        run(tmp_path / "in.png", tmp_path / "other.png", "--size=16")
    (tmp_path / "text.png").write_text("no picture")
    with pytest.raises(UserError, match=r"text\.png cannot be read"):
        run(tmp_path / "text.png", tmp_path / "other.png")


def test_a_video_is_painted_frame_by_frame_at_its_rate(tmp_path, capsys):
    frames = [np.full((32, 48, 3), 40 + 60 * index, np.uint8) for index in range(3)]
    video.write_video(tmp_path / "in.mp4", frames, 12.5)
    run(tmp_path / "in.mp4", tmp_path / "out.mp4", "--style=watercolour")
    capture = cv2.VideoCapture(str(tmp_path / "out.mp4"))
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5 and "3 frames" in capsys.readouterr().out
    painted, given = (list(video.read_frames(video.open_video(tmp_path / f"{name}.mp4"))) for name in ("out", "in"))
    for one, frame in zip(painted, given, strict=True):
        assert np.abs(one - STYLES["watercolour"](frame)).mean() < 0.03  # of the codec


def test_a_video_without_frames_or_content_is_refused(tmp_path, monkeypatch):
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(UserError, match=r"text\.mp4 cannot be read as a video"):
        run(tmp_path / "text.mp4", tmp_path / "out.mp4")
    video.write_video(tmp_path / "in.mp4", [np.zeros((32, 32, 3), np.uint8)], 25.0)
    with pytest.raises(UserError, match=r"must end in \.mp4 or \.avi"):
        run(tmp_path / "in.mp4", tmp_path / "out.gif")
    monkeypatch.setattr(video, "read_frames", lambda capture: iter(()))
    with pytest.raises(UserError, match="has no frames"):
        run(tmp_path / "in.mp4", tmp_path / "out.mp4")


def test_wrong_flags_are_refused_before_anything_is_read(tmp_path):
    for flag, message in {
        "--size=0": "--size=0: squares have at least one pixel",
        "--share=1": "above 0 and below 1",
        "--style=oil": "invalid choice: 'oil'",
        "--layout=left": "invalid choice: 'left'",
        "--seed=-1": "--seed",
    }.items():
        with pytest.raises(UserError, match=message):
            run(tmp_path, tmp_path / "out", flag)
    (tmp_path / "album").mkdir()
    with pytest.raises(UserError, match=r"No such file or directory\. Did you mean 'album'"):
        run(tmp_path / "albun", tmp_path / "out")
    with pytest.raises(UserError, match="holds no images"):
        run(tmp_path / "album", tmp_path / "out")
    save(tmp_path / "album/x.png", picture(0))
    with pytest.raises(UserError, match="only one image"):
        run(tmp_path / "album", tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_the_module_runs_and_explains_itself(monkeypatch, capsys):
    monkeypatch.setattr("sys.argv", ["cartoon", "--help"])
    with pytest.raises(SystemExit) as stopped:
        run_as_main("cvjax.translation.cartoon")
    assert stopped.value.code == 0 and "--layout=folders they are" in capsys.readouterr().out
