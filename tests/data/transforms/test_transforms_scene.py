"""What belongs to an image moves with it: further images exactly as the first."""

import numpy as np
import pytest

from cvjax.data import transforms
from cvjax.data.transforms.scene import Scene

HEIGHT, WIDTH = 40, 60
OPS = {
    "resize": lambda g, s: transforms.resize(s, (52, 90)),
    "letterbox": lambda g, s: transforms.letterbox(s, 64),
    "crop": lambda g, s: transforms.crop(s, 3, 11, (30, 40)),
    "center_crop": lambda g, s: transforms.center_crop(s, 24),
    "pad": lambda g, s: transforms.pad(s, (1, 2, 3, 4), "reflect"),
    "flip": lambda g, s: transforms.flip(g, s, 1.0),
    "flip upside down": lambda g, s: transforms.flip(g, s, 1.0, "vertical"),
    "random_crop": lambda g, s: transforms.random_crop(g, s, 32, padding=4),
    "random_resized_crop": lambda g, s: transforms.random_resized_crop(g, s, 48, (0.4, 0.9)),
    "random_shift": lambda g, s: transforms.random_shift(g, s, 5),
    "random_expand": lambda g, s: transforms.random_expand(g, s, (1.0, 2.0)),
    "random_scale": lambda g, s: transforms.random_scale(g, s, (0.6, 1.6)),
    "rotate": lambda g, s: transforms.rotate(g, s, 60.0),
}


def rng(seed=0):
    return np.random.default_rng(seed)


@pytest.mark.parametrize("name", OPS)
def test_further_images_move_exactly_as_the_first(name):
    image = rng(5).random((HEIGHT, WIDTH, 3)).astype(np.float32)
    for seed in range(4):
        scene = OPS[name](rng(seed), Scene(image, images={"target": image, "grey": image[..., :1]}))
        alone = OPS[name](rng(seed), image)
        np.testing.assert_array_equal(scene.image, alone)
        np.testing.assert_array_equal(scene.images["target"], alone)
        np.testing.assert_array_equal(scene.images["grey"], alone[..., :1])


def test_a_mosaic_joins_further_images_at_the_same_places():
    boxes, rows = np.zeros((0, 4), np.float32), {"area": np.zeros(0, np.float32)}
    generator = rng(1)

    def another():
        image = generator.random((HEIGHT, WIDTH, 1)).astype(np.float32)
        return Scene(image, boxes, rows, images={"negative": 1 - image})

    joined = transforms.mosaic(rng(2), another(), another)
    np.testing.assert_allclose(joined.images["negative"], 1 - joined.image, atol=1e-6)
