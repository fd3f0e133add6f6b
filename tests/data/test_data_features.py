"""Features of a TFDS dataset that belong to an image: read by name, moved with it, refused where they are not there."""

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import builders
from cvjax.data.builders import embedded
from cvjax.errors import UserError

COUNT = 6


def example(index):
    """The image of an example, whose first channel gives columns, the second rows; and its negative."""
    height, width = 8, 10
    rows, columns = np.indices((height, width), dtype=np.uint8)
    image = np.stack([20 * columns, 20 * rows, np.full_like(rows, index)], -1)
    return {"image": image, "negative": 255 - image}


class Annotated(builders.Embedded, skip_registration=True):
    """Writes ArrayRecord as `tfds build` does."""

    name = "annotated"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {"image": image, "negative": image, "number": np.int64}
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for index in range(COUNT):
            images = {name: embedded.png(pixels) for name, pixels in example(index).items()}
            yield index, {**images, "number": index}


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    Annotated.prepared(data_dir=folder)
    return str(folder)


def load(prepared, **settings):
    settings = {"name": "annotated", "data_dir": prepared, "batch": 4, **settings}
    data.check(settings)
    return data.load(settings, seed=0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_image_that_is_named_moves_with_the_first(prepared, in_memory):
    transforms = [dict(op="rotate", degrees=30.0, value=0.5), dict(op="flip")]
    batch = next(load(prepared, images={"target": "negative"}, transforms=transforms, in_memory=in_memory).train())
    assert set(batch) == {"image", "target", "number"}
    np.testing.assert_allclose(batch["target"], 1 - batch["image"], atol=1e-6)
    assert set(next(load(prepared).train())) == {"image", "number"}  # what is not named would stay behind


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": {"target": "negatve"}}, r"data.images.target='negatve'.*no such image. Did you mean 'negative'"),
        ({"images": {"number": "negative"}}, r"annotated has a feature 'number' already"),
        ({"images": ["negative"]}, r"data.images=.* must be dict"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(prepared, settings, message):
    with pytest.raises(UserError, match=message):
        load(prepared, **settings)
