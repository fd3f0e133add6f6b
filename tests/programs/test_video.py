"""Videos keep their frames, their size and, as far as MPEG-4 can say it, their rate."""

import itertools
import os

import cv2
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.programs import video


def shown(path):
    """Frames, height, width and rate of a video."""
    capture = cv2.VideoCapture(str(path))
    frames = list(video.read_frames(capture))
    return len(frames), *frames[0].shape[:2], cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS)


@pytest.mark.parametrize(
    "rate, nearest",
    [
        *[(25.0, 25.0), (23.976, 23.976), (66.667, 66.67), (211.222, 211.22), (7000.04, 7000.0), (9e4, 65535.0)],
        *[(0.0, 25.0), (float("nan"), 25.0), (-5.0, 25.0), (1e-9, 0.01)],
    ],
)
def test_rates_that_mpeg_4_cannot_say_become_the_nearest(tmp_path, rate, nearest):
    assert video.nearest_rate(rate) == nearest
    frames = itertools.repeat(np.zeros((16, 16, 3), np.uint8), 2)
    assert video.write_video(tmp_path / "x.mp4", frames, video.nearest_rate(rate)) == 2
    if 1 <= rate < 1000:
        assert shown(tmp_path / "x.mp4")[3] == pytest.approx(nearest, rel=1e-6)


@pytest.mark.parametrize("suffix", video.CODECS)
def test_odd_sides_are_padded_by_their_last_row_and_column(tmp_path, suffix):
    frame = np.full((49, 65, 3), 40, np.uint8)
    frame[:, -4:], frame[-4:] = 200, 200
    assert video.write_video(tmp_path / f"x{suffix}", [frame] * 3, 25.0) == 3
    assert shown(tmp_path / f"x{suffix}") == (3, 50, 66, 25)
    (first, *_) = video.read_frames(video.open_video(tmp_path / f"x{suffix}"))
    assert abs(first[-1] - 200 / 255).max() < 0.1 and abs(first[:, -1] - 200 / 255).max() < 0.1


def test_a_name_that_opencv_would_crash_at_is_refused(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    path.touch()
    with pytest.raises(UserError, match=r"--input=.*caf\\xe9\.mp4 is not UTF-8, and OpenCV takes no other path"):
        video.open_video(path)
    with pytest.raises(UserError, match=r"--output=.*is not UTF-8"):
        video.check_output(tmp_path / "in.mp4", path)


def test_no_frames_are_no_video(tmp_path):
    assert video.write_video(tmp_path / "x.mp4", [], 25.0) == 0 and not (tmp_path / "x.mp4").exists()


def test_a_frame_of_another_size_is_said_and_those_before_it_are_kept(tmp_path):
    frames = [np.zeros((32, 48, 3), np.uint8)] * 2 + [np.zeros((48, 32, 3), np.uint8)]
    with pytest.raises(UserError, match=r"frame 2 is 48x32, and those before it 32x48; all frames of a video have one"):
        video.write_video(tmp_path / "x.avi", frames, 25.0)
    assert shown(tmp_path / "x.avi")[:3] == (2, 32, 48)
