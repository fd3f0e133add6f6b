"""`nuclei`: crops of a fluorescence micrograph with the pixels of each nucleus, from the package stardist."""

import io
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Integer, UInt8
from PIL import Image

from cvjax.data.builders.embedded import Embedded, png
from cvjax.packaged import PackagedFile

SIZE = 128
PERCENTILES = (1.0, 99.8)  # of the training half's grey levels, which become 0 and 255
CLASSES = ("background", "nucleus")
MOST = 16  # nuclei of any crop


def _file(name: str, sha256: str) -> PackagedFile:
    return PackagedFile("stardist", "0.9.2", f"stardist/data/images/{name}", sha256, "BSD-3-Clause")


class Nuclei(Embedded):
    """128x128 crops of one picture of 512x512 pixels with 125 nuclei: 65 of its left half, 8 of its right half.

    Training crops overlap, 32 pixels apart; test crops touch and do not overlap. Some nuclei touch, and some are cut by
    the border of a crop, or by that of the halves. A crop's `instances` are numbered from 1 on, as its boxes are, which
    are tight. `corner` is the top and the left of a crop in the picture.

    Caicedo et al., Nucleus Segmentation across Imaging Experiments: the 2018 Data Science Bowl, Nature Methods, 2019.
    """

    VERSION = tfds.core.Version("1.1.0")
    most_boxes = MOST
    sources = {  # noqa: RUF012 (a constant)
        "image": _file("img2d.tif", "f9ccc1571b92c861ff87e28463068b43f61bd47357ed0503f711e5cd1eb97750"),
        "instances": _file("mask2d.tif", "59ad5e820b7982ca9d13e946fa6e7f64e2714899e00a2ae6c69aa79aad53d46f"),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        grey = tfds.features.Image(shape=(SIZE, SIZE, 1), encoding_format="png")
        nucleus = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["nucleus"]),
            "area": np.float32,
        }
        features = {
            "image": grey,
            "class_map": tfds.features.LabeledImage(labels=list(CLASSES), shape=(SIZE, SIZE, 1), encoding_format="png"),
            "objects": tfds.features.Sequence(nucleus),
            "instances": grey,  # 0 is background, 1 + r row r of `objects`
            "corner": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Crops of a fluorescence micrograph of nuclei.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        files = self.read_sources()
        picture, instances = (np.asarray(Image.open(io.BytesIO(files[name]))) for name in ("image", "instances"))
        grey = normalise(picture)
        return {split: self._generate_examples(grey, instances, split) for split in ("train", "test")}

    def _generate_examples(
        self, grey: np.ndarray, instances: np.ndarray, split: str
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, (top, left) in enumerate(corners(*grey.shape, split)):
            window = slice(top, top + SIZE), slice(left, left + SIZE)
            numbers = renumber(instances[window])
            maps = {"image": grey[window], "class_map": (numbers > 0).astype(np.uint8), "instances": numbers}
            pictures = {name: png(pixels[..., None]) for name, pixels in maps.items()}
            yield key, {**pictures, "objects": annotate(numbers), "corner": f"{top} {left}"}


def normalise(picture: Integer[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Stretches grey levels so that `PERCENTILES` of the left half, the training half, become 0 and 255, and clips."""
    low, high = np.percentile(picture[:, : picture.shape[1] // 2], PERCENTILES)
    return np.round(np.clip((picture - low) / (high - low), 0, 1) * 255).astype(np.uint8)


def corners(height: int, width: int, split: str) -> list[tuple[int, int]]:
    """Lists the top and the left of each crop: "train" has the left half, 32 pixels apart, "test" the right one."""
    first, last, step = (0, width // 2, SIZE // 4) if split == "train" else (width // 2, width, SIZE)
    tops, lefts = range(0, height - SIZE + 1, step), range(first, last - SIZE + 1, step)
    return [(top, left) for top in tops for left in lefts]


def renumber(instances: Integer[np.ndarray, "height width"]) -> UInt8[np.ndarray, "height width"]:
    """Numbers the objects of a crop 1, 2, ... in the order of their numbers; 0 stays background."""
    there = np.unique(instances[instances > 0])
    return np.where(instances > 0, 1 + np.searchsorted(there, instances), 0).astype(np.uint8)


def annotate(instances: UInt8[np.ndarray, "height width"]) -> list[dict[str, Any]]:
    """Returns the objects of a map of instances, as TFDS's detection datasets write them."""
    size, objects = np.tile(instances.shape, 2), []
    for number in range(1, int(instances.max()) + 1):
        rows, columns = np.nonzero(instances == number)
        corners = np.array([rows.min(), columns.min(), rows.max() + 1, columns.max() + 1])
        box = tfds.features.BBox(*(corners / size).tolist())
        objects.append({"bbox": box, "label": 0, "area": float(len(rows))})
    return objects
