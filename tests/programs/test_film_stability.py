"""The film that pans over a photograph, and the program that says how steady another film is that was made of it."""

import re

import cv2
import numpy as np
import pytest

from cvjax.data.builders import photos
from cvjax.errors import UserError
from cvjax.metrics import temporal
from cvjax.programs import apply, film, stability, video


def test_a_film_goes_from_one_corner_to_the_other_and_zooms_in():
    picture = photos.read("chelsea")
    first, *_, last = frames = list(film.frames(picture, 9, 100, zoom=2.0))
    assert len(frames) == 9 and {frame.shape for frame in frames} == {(100, 100, 3)}
    scaled = cv2.resize(picture, (301, 200), interpolation=cv2.INTER_AREA)
    np.testing.assert_array_equal(last, scaled[-100:, -100:])
    whole = cv2.resize(scaled[:200, :200], (100, 100), interpolation=cv2.INTER_AREA)
    assert np.abs(first.astype(int) - whole).mean() < 1  # of means of four pixels, rounded
    still = list(film.frames(picture, 1, 64))
    assert len(still) == 1


def test_the_film_stays_within_a_picture_of_any_shape():
    for shape in ((40, 40), (30, 90), (90, 30)):
        picture = np.full((*shape, 3), 200, np.uint8)
        picture = cv2.copyMakeBorder(picture[1:-1, 1:-1], 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=(200, 200, 200))
        for frame in film.frames(picture, 5, 16, zoom=1.7):
            assert (frame == 200).all()


def test_steady_and_flickering_films_are_told_apart(tmp_path, capsys):
    film.main([f"--output={tmp_path / 'in.avi'}", "--frames=6", "--size=97"])  # odd sides: the codec adds a pixel
    frames = [np.round(255 * one).astype(np.uint8) for one in video.read_frames(video.open_video(tmp_path / "in.avi"))]
    assert len(frames) == 6 and frames[0].shape == (98, 98, 3)
    flicker = [frame // 2 + np.uint8(40 * (index % 2)) for index, frame in enumerate(frames)]
    video.write_video(tmp_path / "out.avi", flicker, 25.0)
    capsys.readouterr()
    stability.main([f"--input={tmp_path / 'in.avi'}", f"--output={tmp_path / 'out.avi'}", "--style=pencil"])
    printed = capsys.readouterr().out
    errors = {name: float(error) for name, error in re.findall(r"^(input|output|pencil).*?(\d\.\d+)", printed, re.M)}
    assert errors["output"] == pytest.approx(40 / 255, abs=0.015) and errors["input"] < 0.05
    assert 0 < errors["pencil"] < errors["output"] and "over 5 pairs of frames" in printed


def test_a_last_row_that_a_codec_added_is_dropped(tmp_path, monkeypatch):
    odd, even = np.zeros((31, 33, 3), np.float32), np.zeros((32, 34, 3), np.float32)
    monkeypatch.setattr(video, "open_video", lambda path, setting: path)
    monkeypatch.setattr(video, "read_frames", lambda path: iter([odd if path.name == "in" else even]))
    [frames] = stability.side_by_side(tmp_path / "in", tmp_path / "out", "ink")
    assert {frame.shape for frame in frames.values()} == {(31, 33, 3)}


def test_one_frame_is_no_frames(tmp_path, capsys):
    film.main([f"--output={tmp_path / 'out.avi'}", "--frames=1", "--size=16"])
    assert "\n1 frame in " in capsys.readouterr().out
    found = temporal.Stability({"input": 0.0}, {"input": 0.0}, 1.0, 1)
    assert stability.report(found, "ink").endswith("over 1 pair of frames")


def test_films_that_do_not_belong_together_are_refused(tmp_path):
    frames = [np.zeros((32, 32, 3), np.uint8)] * 3
    for name, made in {"in": frames, "short": frames[:2], "small": [one[:16, :16] for one in frames]}.items():
        video.write_video(tmp_path / f"{name}.avi", made, 25.0)
    (tmp_path / "text.avi").write_text("no video")

    def run(source, output):
        stability.main([f"--input={tmp_path / source}", f"--output={tmp_path / output}"])

    with pytest.raises(UserError, match=r"--output has 2 frames, and --input more"):
        run("in.avi", "short.avi")
    with pytest.raises(UserError, match=r"--input has 2 frames, and --output more"):
        run("short.avi", "in.avi")
    with pytest.raises(UserError, match=r"frame 0 of the film 'output' is 16x16; 32x32 is expected"):
        run("in.avi", "small.avi")
    with pytest.raises(UserError, match=r"--output=.*text\.avi cannot be read as a video"):
        run("in.avi", "text.avi")


def test_what_cannot_be_filmed_is_said(tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    for flags, message in {
        ("--size=20000", "--zoom=2"): r"of 300x451 would be scaled to a side of 60,133 pixels; .* so a size of 5449",
        ("--size=1000000000",): "at most 16,384",
        ("--frames=0",): "at least 1 frame",
        ("--zoom=0.5",): "a zoom from 1",
        ("--rate=nan",): "a rate above 0",
        (f"--input={tmp_path / 'text.png'}",): r"text\.png cannot be read",
        (f"--input={tmp_path / 'none.png'}",): r"none\.png cannot be read",
    }.items():
        with pytest.raises(UserError, match=message):
            film.main([f"--output={tmp_path / 'out.avi'}", *flags])
    with pytest.raises(UserError, match=r"must end in \.mp4 or \.avi"):
        film.main([f"--output={tmp_path / 'out.gif'}"])


@pytest.mark.slow
def test_a_network_paints_a_film_of_any_size_at_its_rate(trained_run, tmp_path, capsys):
    run = trained_run("configs/cartoon_photos.py:smoke")
    film.main([f"--output={tmp_path / 'in.avi'}", "--frames=3", "--size=44", "--rate=12.5"])
    apply.main([f"--run={run}", f"--input={tmp_path / 'in.avi'}", f"--output={tmp_path / 'out.avi'}"])
    capture = video.open_video(tmp_path / "out.avi")
    assert capture.get(cv2.CAP_PROP_FPS) == 12.5
    assert [frame.shape for frame in video.read_frames(capture)] == [(44, 44, 3)] * 3  # the run's images have 32
    stability.main([f"--input={tmp_path / 'in.avi'}", f"--output={tmp_path / 'out.avi'}"])
    assert "over 2 pairs of frames" in capsys.readouterr().out
