"""Figures of segmentations show what they say."""

import numpy as np
import pytest
from matplotlib.text import Text

from cvjax.metrics import plots

NAMES = ["cat", r"$\frac$", "\u732b", "_tail"]  # the third has a letter that the font lacks
GREY = np.zeros((4, 8, 8, 1), np.float32)
MAPS = np.broadcast_to(np.arange(4, dtype=np.int32)[:, None, None], (4, 8, 8))
POINTS = np.float32([[0, 0], [1, 0], [0, 1], [1, 1]])


def test_errors_are_red_and_void_is_grey():
    truth = np.zeros((2, 16, 16), np.int32)
    truth[:, 8:], truth[0, :4] = 2, 255
    found = np.where(truth == 255, 1, truth)
    found[1, 8:, 8:] = 0
    images = np.full((2, 16, 16, 1), 0.5, np.float32)
    figure = plots.draw_segmentations(images, truth, found, ["background", "cat", "dog"])
    width = figure.shape[1]
    assert figure.dtype == np.float32 and figure.shape[2] == 3

    def share(part, colour):
        return (np.abs(part - np.asarray(colour)).max(-1) < 0.02).mean()

    columns = np.split(figure[:, : width // 4 * 4], 4, axis=1)
    red, grey, green = (0.9, 0.1, 0.1), np.divide((200, 200, 200), 255), (0, 128 / 255, 0)
    pixels = share(columns[0], (0.5, 0.5, 0.5))  # of both images
    assert pixels > 0.5
    for colour in (red, grey):
        assert np.isclose(share(columns[3], colour), pixels / 8, atol=0.02)
    assert all(share(column, red) == 0 for column in columns[:3])
    assert np.isclose(share(columns[1], green), pixels / 2, atol=0.03)  # the legend has green, too
    assert np.isclose(share(columns[1], grey), pixels / 8, atol=0.03)
    assert np.isclose(share(columns[2], green), pixels * 3 / 8, atol=0.03)


@pytest.fixture
def shown(monkeypatch):
    """The texts that the figures drawn so far show."""
    figures, pixels = [], plots._pixels
    monkeypatch.setattr(plots, "_pixels", lambda figure: (figures.append(figure), pixels(figure))[1])
    return lambda: {text.get_text() for figure in figures for text in figure.findobj(Text) if text.get_visible()}


@pytest.mark.filterwarnings("error")  # "Glyph missing from font"
@pytest.mark.parametrize(
    "draw",
    [
        lambda: plots.draw_confusion(np.eye(4, dtype=np.int32), NAMES),
        lambda: plots.draw_legend(NAMES),
        lambda: plots.draw_segmentations(GREY, MAPS, MAPS, NAMES),
        lambda: plots.draw_map(POINTS, np.arange(4), names=NAMES),
    ],
    ids=["confusion", "legend", "segmentations", "map"],
)
def test_names_are_shown_letter_by_letter_or_else_the_number(shown, draw):
    draw()
    assert {"cat", r"$\frac$", "2", "_tail"} <= shown()


@pytest.mark.filterwarnings("error")
def test_captions_and_curves_have_names_that_are_no_formulas(shown):
    plots.draw_gallery(GREY, [f"{name} 3 %" for name in NAMES if name.isascii()])
    assert {"cat 3 %", r"$\frac$ 3 %", "_tail 3 %"} <= shown()
    plots.draw_precision_recall({r"$\frac$": (POINTS[0], POINTS[1])})
    assert any(text.startswith(r"$\frac$") for text in shown() - {r"$\frac$ 3 %"})


def test_a_legend_has_every_colour():
    legend = plots.draw_legend([f"class {index}" for index in range(30)])
    found = set(map(tuple, np.round(legend.reshape(-1, 3) * 255).astype(int)))
    assert {(0, 0, 0), (128, 0, 0), (192, 128, 128), (0, 64, 128)} <= found
