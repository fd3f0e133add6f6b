"""`lfw_faces`: real photographs of faces, and of what is none, that scikit-image ships."""

import importlib.resources
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float

from cvjax.data.builders.embedded import Embedded, png

SIDE = 25
CLASSES = ("face", "other")
EACH = 100  # pictures of each class; the file has the faces first
SEED = 13
TEST = 30  # pictures of each class that are held out


class LfwFaces(Embedded):
    """25x25 grey crops: 100 faces of Labeled Faces in the Wild and 100 crops without one; 70 of each to train.

    They are scikit-image's `lfw_subset`. Who is on a picture is not known. `id` is the row in that file.
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Faces and other crops of Labeled Faces in the Wild.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=list(CLASSES)),
                    "id": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(chosen) for split, chosen in rows().items()}

    def _generate_examples(self, chosen: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        pictures = read()
        for key, row in enumerate(chosen.tolist()):
            grey = np.round(pictures[row] * 255).astype(np.uint8)
            yield key, {"image": png(grey[..., None]), "label": row // EACH, "id": str(row)}


def read() -> Float[np.ndarray, "200 25 25"]:
    """Reads the pictures, in [0, 1]."""
    with (importlib.resources.files("skimage.data") / "lfw_subset.npy").open("rb") as opened:
        return np.load(opened)


def rows() -> dict[str, np.ndarray]:
    """Returns the rows of each split, in random order; the classes are equally frequent in both."""
    generator = np.random.default_rng(SEED)
    orders = [first + generator.permutation(EACH) for first in range(0, len(CLASSES) * EACH, EACH)]
    mixed = generator.permutation
    return {
        "train": mixed(np.concatenate([order[TEST:] for order in orders])),
        "test": mixed(np.concatenate([order[:TEST] for order in orders])),
    }
