"""`digits`: scikit-learn's 1,797 handwritten digits, real scans of 8x8 pixels in 17 grey levels."""

from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Float, Int

from cvjax.data.builders.embedded import Embedded, png

LEVELS = 16  # a value v of 0..16 is stored as round(255 v / 16), from which round(16 x) of x in [0, 1] gets v back
TEST_EXAMPLES = 500
SPLIT_SEED = 0


class Digits(Embedded):
    """1,297 training and 500 test digits, stratified by class, split once and for all by scikit-learn with seed 0.

    E. Alpaydin, C. Kaynak, "Optical Recognition of Handwritten Digits", UCI Machine Learning Repository, 1998
    (its test part, as `sklearn.datasets.load_digits` ships it).
    """

    VERSION = tfds.core.Version("1.0.0")

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits, 8x8 pixels in 17 grey levels.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(8, 8, 1), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "id": tfds.features.Text(),  # row in `load_digits`
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(chosen) for split, chosen in rows().items()}

    def _generate_examples(self, rows: np.ndarray) -> Iterator[tuple[int, dict[str, Any]]]:
        images, labels = scans()
        pixels = np.round(images * (255 / LEVELS)).astype(np.uint8)[..., None]
        for key, row in enumerate(rows.tolist()):
            yield key, {"image": png(pixels[row]), "label": int(labels[row]), "id": str(row)}


def scans() -> tuple[Float[np.ndarray, "1797 8 8"], Int[np.ndarray, " 1797"]]:
    """Returns all digits, in 0..16, and their labels, as `load_digits` orders them."""
    from sklearn import datasets  # slow to import, and wanted once only

    loaded = datasets.load_digits()
    return loaded.images, loaded.target


def rows() -> dict[str, Int[np.ndarray, " count"]]:
    """Returns which rows of `load_digits` belong to which split."""
    from sklearn import model_selection

    _, labels = scans()
    train, test = model_selection.train_test_split(
        np.arange(len(labels)), test_size=TEST_EXAMPLES, stratify=labels, random_state=SPLIT_SEED
    )
    return {"train": train, "test": test}
