"""Warping errors: about 0 of what moves along, the amplitude of what flickers, and no place that cannot be followed."""

import cv2
import numpy as np
import pytest

from cvjax.data.builders import photos
from cvjax.errors import UserError
from cvjax.metrics import temporal

STEP = (3, -2)  # columns and rows that the picture moves from frame to frame


@pytest.fixture(scope="module")
def film():
    """Sections of a photograph, which moves by whole pixels."""
    picture = photos.read("astronaut").astype(np.float32) / 255
    across, down = STEP
    places = [(150 - down * moment, 100 - across * moment) for moment in range(4)]
    return [picture[top : top + 128, left : left + 160] for top, left in places]


def side_by_side(film, **others):
    return [
        {"input": one, **{name: frames[index] for name, frames in others.items()}} for index, one in enumerate(film)
    ]


def test_the_flow_is_the_translation_and_warping_undoes_it(film):
    backward = temporal.flow(film[1], film[0])
    inner = backward[16:-16, 16:-16]
    np.testing.assert_allclose(np.median(inner, axis=(0, 1)), [-STEP[0], -STEP[1]], atol=0.05)
    exact = np.full_like(backward, (-STEP[0], -STEP[1]))
    moved = temporal.warp(film[0], exact)
    np.testing.assert_allclose(moved[2:-2, 3:-3], film[1][2:-2, 3:-3], atol=1e-6)
    grey = temporal.warp(film[0][..., :1], exact)
    np.testing.assert_array_equal(grey[..., 0], moved[..., 0])


def test_warping_between_pixels_is_bilinear():
    picture = np.arange(20.0, dtype=np.float32).reshape(4, 5, 1)
    moved = temporal.warp(picture, np.full((4, 5, 2), (0.25, 0.5), np.float32))
    assert moved[1, 2, 0] == pytest.approx(7 + 0.25 + 0.5 * 5)


def test_what_moves_along_is_stable_and_flicker_has_its_amplitude(film):
    brighter = [np.float32(0.8) * frame + np.float32(0.1 * (index % 2)) for index, frame in enumerate(film)]
    still = [film[0] for _ in film]  # sticks to the screen
    found = temporal.warping_errors(side_by_side(film, flicker=brighter, still=still))
    assert found.pairs == 3 and 0.5 < found.share < 0.98
    assert found.errors["input"] < 0.01 and found.changes["input"] > 4 * found.errors["input"]
    assert found.errors["flicker"] == pytest.approx(0.1, abs=0.005)
    assert found.changes["still"] == 0 and found.errors["still"] > 5 * found.errors["input"]


def test_flicker_of_colour_counts_a_third_for_one_of_three_channels(film):
    tinted = [frame + np.float32([0.06 * (index % 2), 0, 0]) for index, frame in enumerate(film)]
    assert temporal.warping_errors(side_by_side(film, tinted=tinted)).errors["tinted"] == pytest.approx(0.02, abs=0.007)


def test_frames_are_compared_with_the_one_before_not_with_the_first(film):
    drifting = [np.full_like(frame, 0.1 * index) for index, frame in enumerate(film)]
    assert temporal.warping_errors(side_by_side(film, drifting=drifting)).errors["drifting"] == pytest.approx(0.1)


def test_what_is_uncovered_or_leaves_the_picture_is_not_followed(film):
    background, patch = film[0], photos.read("coffee")[100:140, 200:240].astype(np.float32) / 255
    frames = []
    for left in (50, 62):  # a patch moves before a background that does not
        frame = background.copy()
        frame[40:80, left : left + 40] = patch
        frames.append(frame)
    backward, forward = temporal.flow(frames[1], frames[0]), temporal.flow(frames[0], frames[1])
    mask = temporal.followed(backward, forward)
    assert not mask[42:78, 52:60].any()  # uncovered
    assert mask[50:70, 72:92].mean() > 0.9 and mask[100:, 10:-10].mean() > 0.9
    away = np.full((20, 20, 2), (6, 0), np.float32)
    mask = temporal.followed(away, -away)
    assert mask[5:-5, 2:12].all() and not mask[:, 12:].any()  # column 12 leads to 18, beyond 19 less the slack
    assert not temporal.followed(away, away).any()  # there and back disagree


def test_misuse_is_said(film):
    with pytest.raises(UserError, match="two frames or more; there are 1"):
        temporal.warping_errors(side_by_side(film[:1]))
    with pytest.raises(UserError, match="two frames or more; there are 0"):
        temporal.warping_errors([])
    with pytest.raises(UserError, match=r"frame 1 of the film 'input' is 100x160; 128x160 is expected"):
        temporal.warping_errors([{"input": film[0]}, {"input": film[1][:100]}])
    with pytest.raises(UserError, match=r"frame 0 of the film 'other' is 64x160"):
        temporal.warping_errors([{"input": film[0], "other": film[0][:64]}])
    with pytest.raises(UserError, match="at least 16x16 pixels; these have 8x160"):
        temporal.warping_errors(side_by_side([frame[:8] for frame in film]))
    noise = np.random.default_rng(0).random((2, 64, 64, 3)).astype(np.float32)
    lost = np.full((64, 64, 2), 100, np.float32)
    with (
        pytest.MonkeyPatch.context() as patch,
        pytest.raises(UserError, match="no motion can be followed in any of 1 pair of frames"),
    ):
        patch.setattr(temporal, "flow", lambda start, end: lost)
        temporal.warping_errors([{"input": one} for one in noise])


def test_frames_of_a_few_pixels_can_be_followed():
    frame = cv2.resize(photos.read("astronaut"), (temporal.SMALLEST, temporal.SMALLEST)).astype(np.float32) / 255
    found = temporal.warping_errors([{"input": frame[..., :1]}] * 2)
    assert found.errors["input"] == pytest.approx(0, abs=1e-6) and found.share > 0.5
