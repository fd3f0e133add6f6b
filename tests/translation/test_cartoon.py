"""Painted pictures: the same each time, of their size and type, flat within lines, alike at every size."""

import cv2
import numpy as np
import pytest
from jaxtyping import TypeCheckError

from cvjax.data.builders import photos
from cvjax.translation.cartoon import STYLES, ink, pencil, watercolour
from cvjax.translation.pix2pix import score_pictures


@pytest.fixture(scope="module")
def cat():
    return photos.read("chelsea")[40:232, 120:312]


def lightness(picture):
    return cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY).astype(float)


def slopes(picture):
    return np.hypot(*np.gradient(lightness(picture)))


@pytest.mark.parametrize("style", STYLES)
def test_a_picture_is_painted_the_same_each_time_and_keeps_size_and_type(style, cat):
    paint, given = STYLES[style], cat[:101, :64]
    painted = paint(given)
    assert painted.shape == given.shape and painted.dtype == np.uint8 and np.abs(painted.astype(int) - given).mean() > 5
    np.testing.assert_array_equal(paint(given.copy()), painted)
    floats = paint(given.astype(np.float32) / 255)
    assert floats.dtype == np.float32 and floats.min() >= 0 and floats.max() <= 1
    np.testing.assert_array_equal(np.round(floats * 255), painted)
    grey = paint(given[..., :1])
    assert grey.shape == (101, 64, 1)
    for size in ((1, 1), (1, 40), (7, 3)):
        assert paint(given[: size[0], : size[1]]).shape == (*size, 3)
    with pytest.raises(TypeCheckError):
        paint(given[..., 0])


@pytest.mark.parametrize("style", STYLES)
def test_values_outside_of_the_range_are_clipped_and_grey_stays_grey(style, cat):
    floats = cat[:64, :64].astype(np.float32) / 255
    wide = np.where(floats > 0.5, floats + 5, floats)
    np.testing.assert_array_equal(STYLES[style](wide), STYLES[style](np.clip(wide, 0, 1)))
    if style != "watercolour":
        grey = STYLES[style](np.repeat(cat[..., :1], 3, axis=2)).astype(int)
        assert np.ptp(grey, axis=2).max() <= 2  # Lab in float32, rounded


def test_ink_has_few_colours_and_its_slopes_at_few_places(cat):
    painted = ink(cat)

    def common(picture):  # colours that cover nine tenths, of 32 levels a channel
        counts = np.sort(np.unique((picture // 8).reshape(-1, 3), axis=0, return_counts=True)[1])[::-1]
        return np.searchsorted(counts.cumsum(), 0.9 * counts.sum()) + 1

    assert common(painted) < 0.4 * common(cat)
    flat = lambda picture: (slopes(picture) < 1).mean()  # noqa: E731
    steepest = lambda picture: np.sort(slopes(picture), axis=None)[-picture[..., 0].size // 10 :]  # noqa: E731
    of_all = lambda picture: steepest(picture).sum() / slopes(picture).sum()  # noqa: E731
    assert flat(painted) > 2 * flat(cat) and of_all(painted) > of_all(cat) + 0.2
    fewer, plain = ink(cat, levels=3, line=0.0), ink(cat, line=0.0)
    assert common(fewer) < common(plain)


def test_ink_draws_its_lines_on_the_dark_side_of_edges_and_nowhere_else():
    picture = np.full((80, 80, 3), 200, np.uint8)
    picture[:, 40:] = 90
    drawn = lightness(ink(picture)) - lightness(ink(picture, line=0.0))
    assert (drawn[:, 40:43].min(axis=1) < -40).all() and (np.abs(np.delete(drawn, range(36, 46), axis=1)) < 1).all()
    assert ink(picture)[5, 5].tolist() != ink(picture)[5, 75].tolist()


def test_ink_smooths_noise_away_and_keeps_edges():
    noise = np.random.default_rng(0).normal(0, 6, (96, 96, 1))
    clean = np.full((96, 96, 3), 180.0)
    clean[:, 48:] = 60
    painted = ink(np.clip(clean + noise, 0, 255).astype(np.uint8))
    for half in (painted[:, :42], painted[:, 54:]):
        assert len(np.unique(half.reshape(-1, 3), axis=0)) <= 5  # two steps and blends of them
    assert slopes(painted)[:, 46:50].max(axis=1).min() > 20


def test_a_sketch_is_light_with_strokes_where_the_picture_is_darker_than_around(cat):
    sketch = pencil(cat)
    assert (np.ptp(sketch, axis=2) == 0).all() and np.median(sketch) > 190
    step = np.full((80, 80, 3), 230, np.uint8)
    step[:, 40:] = 150
    drawn = lightness(pencil(step, hatching=0.0))
    assert drawn[:, 40].max() < drawn[:, 5].min() - 30 and drawn[:, 40].max() < drawn[:, 75].min() - 20
    assert drawn[:, 75].mean() < drawn[:, 5].mean() - 5  # shade
    assert lightness(pencil(step))[:, 70:].std() > 3 * drawn[:, 70:].std() + 1  # strokes of the hatching


def test_a_watercolour_is_lighter_and_smoother_with_grain(cat):
    painted, plain = watercolour(cat), watercolour(cat, grain=0.0)
    assert plain.mean() > cat.mean() + 10
    assert np.median(slopes(plain)) < 0.7 * np.median(slopes(cat)) and slopes(painted).mean() > slopes(plain).mean()


@pytest.mark.parametrize("style", STYLES)
def test_a_photograph_of_many_pixels_looks_like_its_thumbnail(style):
    thumbnail = photos.read("chelsea")
    thumbnail = cv2.resize(thumbnail, (768, 512), interpolation=cv2.INTER_CUBIC)
    large = cv2.resize(thumbnail, None, fx=2, fy=2, interpolation=cv2.INTER_CUBIC)
    paint = STYLES[style]
    shrunk = cv2.resize(paint(large), (768, 512), interpolation=cv2.INTER_AREA).astype(float)
    wanted, given = paint(thumbnail), thumbnail
    # 3 % are interpolation; with the strokes of the thumbnail 10 % (pencil) to 40 % would be left.
    assert np.abs(shrunk - wanted).mean() < 0.06 * np.abs(given.astype(float) - wanted).mean()


def test_what_is_learnt_is_measured_beside_the_photograph():
    generator = np.random.default_rng(0)
    truth = generator.integers(60, 196, (2, 24, 24, 3)) / 255
    given = truth + generator.choice([-20, 20], truth.shape) / 255
    made = (truth + given) / 2  # half the error is 6 dB
    figures = score_pictures([(truth, made, given), (truth[:1], made[:1], given[:1])])
    assert figures["psnr_over_input"] == pytest.approx(20 * np.log10(2)) and 0 < figures["ssim_over_input"] < 1
    assert score_pictures([(truth, given, given)])["psnr_over_input"] == 0
    for other in (None, given[..., :1], truth):  # nothing to compare with
        assert "psnr_over_input" not in score_pictures([(truth, made, other)])


@pytest.mark.parametrize("levels", [1, 3, 8])
def test_ink_has_as_many_steps_of_lightness_as_asked_for(levels):
    greys = {tuple(ink(np.full((2, 2, 3), level, np.uint8), levels=levels, line=0.0)[0, 0]) for level in range(256)}
    assert len(greys) == levels


def test_white_with_noise_stays_in_the_last_wash():
    white = np.full((64, 64, 3), 255, np.uint8)
    assert np.ptp(watercolour(white, washes=1, grain=0.0)) < 15  # the noise; a wash too many makes it 22
