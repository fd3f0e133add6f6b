"""`digit_crops`: one real handwritten digit on a crop of a photograph, for classifiers of small colour images."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.data.builders import photos
from cvjax.data.builders.composition import Glyphs, Layout, background, compose
from cvjax.data.builders.digit_scenes import SPLITS
from cvjax.data.builders.embedded import Embedded, png

LAYOUT = Layout(size=32, most=1, smallest=20, degrees=0.0, occlusion=False)
SEED = 1  # apart from the random streams of `digit_scenes`


@dataclasses.dataclass
class Crops(tfds.core.BuilderConfig):
    """A variant: the side of its crops, and their number in each split."""

    size: int = 32
    train: int = 12_000
    test: int = 2000

    @property
    def layout(self) -> Layout:
        """Where the digit may be: anywhere."""
        return dataclasses.replace(LAYOUT, size=self.size)


class DigitCrops(Embedded):
    """Images of one whole, upright digit, 20 to 28 pixels long, in a colour that stands out: by default 32x32 pixels.

    The digits and photographs are those of `digit_scenes`, split in the same way: a network trained on these crops has
    seen none of the test scenes' digits or photographs.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        Crops(name="32", description="32x32 pixels"),
        Crops(name="64", description="64x64 pixels, where the digit has to be found", size=64, train=8000),
        Crops(name="smoke", description="a few of them", train=64, test=32),
        Crops(name="smoke_64", description="a few of 64x64", size=64, train=64, test=32),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.size
        return tfds.core.DatasetInfo(
            builder=self,
            description="Single handwritten digits on crops of photographs.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
                    "id": tfds.features.Text(),  # row in `load_digits`
                    "photograph": tfds.features.Text(),
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        photographs = {name: photos.read(name) for name in SPLITS[split]}
        glyphs, layout = Glyphs(split), self.builder_config.layout
        for key in range(getattr(self.builder_config, split)):
            generator = np.random.default_rng((SEED, list(SPLITS).index(split), key))
            name = list(photographs)[generator.integers(len(photographs))]
            crop = compose(generator, background(generator, photographs[name], layout.size), glyphs, layout)
            (digit,) = crop["objects"]
            features = {"label": digit["label"], "id": str(digit["row"]), "photograph": name}
            yield key, {"image": png(crop["image"]), **features}
