"""`photos`: the photographs that scikit-image and scikit-learn ship, in crops or whole."""

import dataclasses
import importlib.resources
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from cvjax.data.builders.embedded import Embedded, png

# Name -> where it lies. Train and test share no scene; the stereo pair is one scene.
TRAIN = {
    "coffee": ("skimage.data", "coffee.png"),
    "rocket": ("skimage.data", "rocket.jpg"),
    "ihc": ("skimage.data", "ihc.png"),
    "motorcycle_left": ("skimage.data", "motorcycle_left.png"),
    "motorcycle_right": ("skimage.data", "motorcycle_right.png"),
    "hubble": ("skimage.data", "hubble_deep_field.jpg"),
    "china": ("sklearn.datasets.images", "china.jpg"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}
TEST = {
    "astronaut": ("skimage.data", "astronaut.png"),
    "chelsea": ("skimage.data", "chelsea.png"),
    "camera": ("skimage.data", "camera.png"),
    "brick": ("skimage.data", "brick.png"),
}


@dataclasses.dataclass
class Crops(tfds.core.BuilderConfig):
    """A variant: square crops of `size` pixels that touch and do not overlap, or whole photographs with None."""

    size: int | None = 64


class Photos(Embedded):
    """Crops of eight training and four test photographs; the label says which photograph. Grey ones are made RGB."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        *(Crops(name=str(size), size=size, description=f"{size}x{size} crops") for size in (64, 32, 128)),
        Crops(name="whole", size=None, description="whole photographs, in the order of `TRAIN` and `TEST`"),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Crops of the sample photographs of scikit-image and scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[*TRAIN, *TEST]),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {"train": self._generate_examples(TRAIN), "test": self._generate_examples(TEST)}

    def _generate_examples(self, photographs: dict[str, tuple[str, str]]) -> Iterator[tuple[int, dict[str, Any]]]:
        key = 0
        for name in photographs:
            photograph = read(name)
            height, width = photograph.shape[:2]
            rows, columns = (self.builder_config.size or side for side in (height, width))
            for top in range(0, height - rows + 1, rows):
                for left in range(0, width - columns + 1, columns):
                    yield key, {"image": png(photograph[top : top + rows, left : left + columns]), "label": name}
                    key += 1


def read(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a photograph, in RGB."""
    package, file = (TRAIN | TEST)[name]
    with (importlib.resources.files(package) / file).open("rb") as opened:
        return np.asarray(Image.open(opened).convert("RGB"))
