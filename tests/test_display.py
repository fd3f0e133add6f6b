"""Numbers, tables and grids as a reader sees them."""

import base64
import math
import types

import numpy as np
import PIL.Image
import pytest

from cvjax import display


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        *[(0.83, "0.83"), (1.2149, "1.21"), (412, "412"), (12345.6, "12,346"), (0.01234, "0.0123"), (99.126, "99.13")],
        *[(3.14159e-5, "3.14e-05"), (3e-5, "3e-05"), (0, "0"), (-0.5, "-0.5"), (2.5e9, "2.5e+09"), (1e-3, "0.001")],
        *[(math.nan, "NaN"), (math.inf, "∞"), (-math.inf, "-∞"), (np.float32(0.5), "0.5")],
    ],
)
def test_numbers(value, shown):
    assert display.format_number(value) == shown


@pytest.mark.parametrize(("value", "shown"), [(1.234e12, "1.23 TFLOP/s"), (950, "950 FLOP/s"), (0, "0 FLOP/s")])
def test_prefixes(value, shown):
    assert display.format_scaled(value, "FLOP/s") == shown


def test_what_is_done_is_said_and_how_long_it_took_if_that_was_long(capsys, monkeypatch):
    for seconds, lines in [(0.5, ["opening x ..."]), (3.26, ["opening x ...", "opening x took 3.3 s"])]:
        monkeypatch.setattr(display, "time", types.SimpleNamespace(perf_counter=iter([10, 10 + seconds]).__next__))
        with display.doing("opening x"):
            pass
        assert capsys.readouterr().out.splitlines() == lines


def test_columns():
    assert display.format_columns([("a", "1"), ("long", "1,000")], align="<>") == "a         1\nlong  1,000"


def test_parameters_one_row_a_module():
    params = {"encoder": {"Dense_0": {"kernel": np.zeros((4, 3)), "bias": np.zeros(3)}}, "image": np.zeros((2, 2, 1))}
    assert display.list_parameters(params) == [
        ("encoder/Dense_0", "bias 3, kernel 4×3", 15),
        ("image", "image 2×2×1", 4),
    ]


def test_long_nets_are_folded_to_depth_two():
    block = {f"Conv_{i}": {"kernel": np.zeros((3, 3))} for i in range(30)}
    rows = display.list_parameters({"net": {"stage_0": block, "stage_1": block, "head": {"kernel": np.zeros(5)}}})
    assert rows == [
        ("net/head", "kernel 5", 5),
        ("net/stage_0", "30 arrays", 270),
        ("net/stage_1", "30 arrays", 270),
    ]


def test_a_grid_keeps_the_order_and_enlarges_small_images():
    images = np.linspace(0, 1, 6)[:, None, None, None] * np.ones((1, 8, 8, 1))
    levels, opacity = np.moveaxis(display.grid(images), -1, 0)
    assert levels.shape == (2 * 48 + 2, 3 * 48 + 2 * 2)  # 6 images: 2 rows of 3, 8 pixels enlarged to 48, 2 between
    np.testing.assert_array_equal(levels[24::50, 24::50].ravel(), np.round(255 * np.linspace(0, 1, 6)))
    np.testing.assert_array_equal(levels[50:, 100:], levels[50, 100])
    assert (opacity[48:50] == 0).all() and (opacity[:, 48:50] == 0).all() and (opacity[:48, :48] == 255).all()


def test_one_colour_image_has_no_border_and_is_clipped():
    image = np.full((64, 50, 3), [-1.0, 0.5, 7.0], np.float32)
    image[0, 0] = np.nan
    sheet = display.grid(image)
    assert sheet.shape == (64, 50, 4)
    assert sheet[1, 1].tolist() == [0, 128, 255, 255] and sheet[0, 0].tolist() == [0, 0, 0, 255]


@pytest.mark.parametrize(
    ("count", "height", "rows", "columns"),
    [(64, 64, 8, 8), (10, 64, 2, 5), (12, 64, 3, 4), (7, 64, 3, 3), (2, 64, 1, 2), (16, 192, 2, 8)],
)
def test_grids_are_near_square_and_full_where_they_can_be(count, height, rows, columns):
    sheet = display.grid(np.ones((count, height, 64, 1)))
    assert sheet.shape == (rows * (height + 2) - 2, columns * 66 - 2, 2)
    opacity = sheet[:: height + 2, ::66, 1]  # one corner of each cell
    assert (opacity.ravel() == [255] * count + [0] * (rows * columns - count)).all()


def test_images_that_are_large_are_embedded_smaller(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (300, 200, 3), np.uint8)
    PIL.Image.fromarray(noise).save(tmp_path / "noise.png")
    source, width, height = display.embed_image(tmp_path / "noise.png", 0, 10_000)
    kind, _, content = source.partition(";base64,")
    assert (kind, width, height) == ("data:image/webp", 200, 300) and len(base64.b64decode(content)) <= 10_000
    source, *_ = display.embed_image(tmp_path / "noise.png", 0, 1_000_000)
    assert base64.b64decode(source.partition(",")[2]) == (tmp_path / "noise.png").read_bytes()


@pytest.mark.parametrize("shape", [(8, 8), (2, 8, 8, 4), (0, 8, 8, 1), (1, 2, 8, 8, 3)])
def test_other_shapes_are_refused(shape):
    with pytest.raises(ValueError, match="these have the shape"):
        display.grid(np.zeros(shape))
