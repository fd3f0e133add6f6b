"""Pictures of styles and their weights, as `apply` reads them."""

import numpy as np
import pytest
from PIL import Image

from cvjax.errors import UserError
from cvjax.programs import apply


@pytest.fixture
def styles(tmp_path):
    """Files of a wide picture, whose middle is white, and of a small grey one."""
    wide = np.zeros((6, 12, 3), np.uint8)
    wide[:, 2:10] = 255  # what is left of it at 6 x 8
    Image.fromarray(wide).save(tmp_path / "wide.png")
    Image.fromarray(np.full((3, 4, 3), 51, np.uint8)).save(tmp_path / "small.png")
    return [tmp_path / "wide.png", tmp_path / "small.png"]


def test_styles_cover_the_networks_size_and_keep_their_proportions(styles):
    read = apply.read_styles(styles, channels=3, size=(6, 8))
    np.testing.assert_allclose(read[0], 1)
    np.testing.assert_allclose(read[1], np.full((6, 8, 3), 0.2), rtol=1e-6)
    alone = apply.read_styles(styles[:1], channels=1, size=(6, 8))
    np.testing.assert_allclose(alone, np.ones((6, 8, 1)))


def test_without_a_size_that_of_the_first_style_is_all_styles(styles):
    read = apply.read_styles(styles, channels=3, size=None)
    assert read.shape == (2, 6, 12, 3)
    np.testing.assert_array_equal(np.round(read[0] * 255), np.asarray(Image.open(styles[0])))
    assert apply.read_styles(styles[::-1], channels=3, size=None).shape == (2, 3, 4, 3)


def test_weights_are_numbers_of_which_one_is_above_0():
    np.testing.assert_array_equal(apply.read_weights("3,0.5"), np.float32([3, 0.5]))
    for text in ("0.5;0.5", "0,0", "1,-1", "nan,1", "inf", ""):
        with pytest.raises(UserError, match=rf"--weights={text}: expected numbers of at least 0"):
            apply.read_weights(text)
