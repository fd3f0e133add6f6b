"""`textures`: whole pictures with strokes, grains and colours of their own, for the styles of style transfer."""

import importlib.resources
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from PIL import Image

from cvjax.data.builders.embedded import Embedded, png

# Name -> where it lies. All are in the public domain or under CC0, or as free as scikit-learn's flower (CC BY).
PICTURES = {
    "tissue": ("skimage.data", "ihc.png"),  # stained glands, brown on blue
    "gravel": ("skimage.data", "gravel.png"),
    "grass": ("skimage.data", "grass.png"),
    "flower": ("sklearn.datasets.images", "flower.jpg"),
}


class Textures(Embedded):
    """Four whole pictures; the label says which. Grey ones are made RGB.

    A style is learnt and not generalised: both splits have the same pictures.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Pictures of scikit-image and scikit-learn to take styles from.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[*PICTURES]),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (name, (package, file)) in enumerate(PICTURES.items()):
            with (importlib.resources.files(package) / file).open("rb") as opened:
                yield key, {"image": png(np.asarray(Image.open(opened).convert("RGB"))), "label": name}
