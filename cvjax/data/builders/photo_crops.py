"""`photo_crops`: crops of photographs and textures that scikit-image and scikit-learn ship, each picture a class."""

import dataclasses
import importlib.resources
from collections.abc import Iterator
from typing import Any

import cv2
import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8
from PIL import Image

from cvjax.data.builders.embedded import Embedded, png

# Without the test photographs of `photos`, which a network that was trained on these crops has not seen.
SCIKIT_IMAGE = (
    *("cell.png", "coffee.png", "coins.png", "grass.png", "gravel.png", "hubble_deep_field.jpg", "ihc.png"),
    *("moon.png", "motorcycle_left.png", "page.png", "retina.jpg", "rocket.jpg", "text.png"),
)
PICTURES = {
    **{file.partition(".")[0]: ("skimage.data", file) for file in SCIKIT_IMAGE},
    **{name: ("sklearn.datasets.images", f"{name}.jpg") for name in ("china", "flower")},
}
LONGEST = 640  # pixels; larger pictures are shrunk
SIDE = 64  # of crops
CELL, GAP = 80, 8  # pixels: a picture is cut into square cells, with a gap between them, and crops lie within cells
HELD_OUT = 5  # every fifth cell of a picture is of the test split
FLATTEST = 4.0  # grey levels of standard deviation; cells below, such as empty sky, could be of any picture
SEED = 2


@dataclasses.dataclass
class Crops(tfds.core.BuilderConfig):
    """A variant: the number of crops of each picture in a split."""

    train: int = 192
    test: int = 40


class PhotoCrops(Embedded):
    """64x64 crops of fifteen photographs and textures, each a class; grey pictures are made RGB.

    Crops of one split lie in other cells of the pictures than those of the other split, eight pixels apart or more: no
    pixel is in both.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        Crops(name="64", description="64x64 pixels"),
        Crops(name="smoke", description="a few of them", train=4, test=2),
    ]

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description="Crops of the sample photographs and textures of scikit-image and scikit-learn.",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(SIDE, SIDE, 3), encoding_format="png"),
                    "label": tfds.features.ClassLabel(names=[*PICTURES]),
                    "corner": tfds.features.Text(),  # "top left", in pixels of the picture
                }
            ),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in ("train", "test")}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        pictures = {name: read(name) for name in PICTURES}
        places = {name: cells(picture, held_out=split == "test") for name, picture in pictures.items()}
        generator = np.random.default_rng((SEED, split == "test"))
        for key in range(getattr(self.builder_config, split) * len(PICTURES)):  # the classes take turns
            name = [*PICTURES][key % len(PICTURES)]
            cell = places[name][key // len(PICTURES) % len(places[name])]
            top, left = (int(start + generator.integers(CELL - SIDE + 1)) for start in cell)
            crop = pictures[name][top : top + SIDE, left : left + SIDE]
            yield key, {"image": png(crop), "label": name, "corner": f"{top} {left}"}


def read(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a picture, in RGB, its longest side at most 640 pixels."""
    package, file = PICTURES[name]
    with (importlib.resources.files(package) / file).open("rb") as opened:
        picture = np.asarray(Image.open(opened).convert("RGB"))
    scale = LONGEST / max(picture.shape)
    return picture if scale >= 1 else cv2.resize(picture, None, fx=scale, fy=scale, interpolation=cv2.INTER_AREA)


def cells(picture: UInt8[np.ndarray, "height width 3"], held_out: bool) -> list[tuple[int, int]]:
    """Returns the top left corners of a picture's cells in the test split or in the training split; none are flat."""
    grey = picture.mean(axis=-1)
    starts = [range(0, size - CELL + 1, CELL + GAP) for size in grey.shape]
    corners = [(top, left) for top in starts[0] for left in starts[1]]
    textured = [(y, x) for y, x in corners if grey[y : y + CELL, x : x + CELL].std() >= FLATTEST]
    return [corner for index, corner in enumerate(textured) if (index % HELD_OUT == HELD_OUT // 2) == held_out]
