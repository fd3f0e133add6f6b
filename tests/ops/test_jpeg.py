"""JPEG's losses are those of files that PIL writes and reads."""

import io

import jax.numpy as jnp
import numpy as np
import pytest
import skimage.data
from PIL import Image

from cvjax.ops import jpeg
from cvjax.ops.jpeg import compress

PIXELS = skimage.data.chelsea()[100:165, 150:221]  # 65 x 71, no multiple of 8


def written(pixels, quality, halved=True):
    """The pixels of a JPEG file, and its tables in the order of rows."""
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "jpeg", quality=quality, subsampling=2 if halved else 0)
    image = Image.open(file)
    return np.asarray(image).astype(int), [np.reshape(table, (8, 8)) for table in image.quantization.values()]


@pytest.mark.parametrize("quality", [1, 10, 49, 50, 75, 100])
def test_tables_are_libjpegs(quality):
    for ours, theirs in zip((jpeg.LUMINANCE, jpeg.CHROMINANCE), written(PIXELS, quality)[1], strict=True):
        np.testing.assert_array_equal(jpeg.quantisation(ours, quality), theirs)


@pytest.mark.parametrize("halved", [True, False])
def test_images_are_those_that_pil_reads(halved):
    image = jnp.asarray(PIXELS, jnp.float32) / 255
    for quality in (10, 75):
        theirs, _ = written(PIXELS, quality, halved)
        ours = np.asarray(compress(image, quality, halved)) * 255
        np.testing.assert_allclose(ours, np.round(ours), atol=1e-3)
        # libjpeg computes in integers: levels differ by one here and there, and a wave that lies between two steps of a
        # coarse table goes the other way, which changes its block.
        difference, loss = np.abs(ours - theirs), np.abs(theirs - PIXELS.astype(int)).mean()
        assert difference.mean() < 0.25 * loss and np.percentile(difference, 99) <= 5
        assert loss > 2


def test_grey_images_have_the_table_of_luminance():
    theirs, _ = written(PIXELS[..., 1], 30)
    ours = np.asarray(compress(jnp.asarray(PIXELS[..., 1:2], jnp.float32) / 255, 30)) * 255
    assert ours.shape == (65, 71, 1) and np.abs(ours[..., 0] - theirs).mean() < 0.5
