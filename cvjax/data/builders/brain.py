"""`brain`: slices of the MNI152 average brain with its grey and white matter, from the package nilearn."""

import gzip
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import Bool, Float, UInt8

from cvjax.data.builders.embedded import Embedded, png
from cvjax.errors import UserError
from cvjax.packaged import PackagedFile

SIZE = (96, 80)  # height and width of a slice, in pixels of 2 mm
TEST, GAP = 15, 5  # slices of the test block, and slices of neither split on either side of it
CLASSES = ("background", "grey", "white")

Volume = UInt8[np.ndarray, "right front top"]


def _file(kind: str, sha256: str) -> PackagedFile:
    path = f"nilearn/datasets/data/mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz"
    return PackagedFile("nilearn", "0.14.1", path, sha256, "BSD-3-Clause")


class Brain(Embedded):
    """96x80 axial slices, 2 mm apart, of ONE brain, the average of 152 people: a figure on it is of interpolation.

    Pixels are means of 2x2x2 voxels of 1 mm of the T1-weighted volume, without the skull. A pixel's class is grey or
    white matter where the larger probability of the two exceeds one half, else background, which includes fluid. The
    front is up and the left of the head is on the left; the template is symmetric, so mirrored slices tell nothing new.
    The 15 middle slices are the test split, and 5 on either side of them belong to neither. `slice` counts from below.

    Fonov et al., Unbiased Average Age-Appropriate Atlases for Pediatric Studies, NeuroImage, 2011 (ICBM 2009a).
    """

    VERSION = tfds.core.Version("1.0.0")
    sources = {  # noqa: RUF012 (a constant)
        "t1": _file("t1", "421a10e872fd6cadae7f61d358dffbcc1795a497d61ee76c5dda2503e1a1e9e6"),
        "grey": _file("gm", "97a5ca69bd24db37a9cb7b32525e1733a209af904129bf1cd36da06d24243bed"),
        "white": _file("wm", "382d92812de4744f9c86c7a0e4f680dc317a0a50e4da1f0153618a6798c7b7db"),
    }

    def _info(self) -> tfds.core.DatasetInfo:
        features = {
            "image": tfds.features.Image(shape=(*SIZE, 1), encoding_format="png"),
            "class_map": tfds.features.LabeledImage(labels=list(CLASSES), shape=(*SIZE, 1), encoding_format="png"),
            "slice": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Axial slices of an average brain.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def read_sources(self) -> dict[str, bytes]:
        """Reads the files; raises a UserError if that of the base class is due, or nibabel is absent."""
        files = super().read_sources()
        try:
            import nibabel  # noqa: F401 (the format of volumes, for this dataset alone)
        except ImportError:
            raise UserError(
                f"data.name={self.name!r}: nibabel, which reads its files, is absent: pip install nibabel"
            ) from None
        return files

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        volumes = {name: _decode(content) for name, content in self.read_sources().items()}
        images, classes = slices(**volumes)
        return {name: self._generate_examples(images, classes, chosen) for name, chosen in split(len(images)).items()}

    def _generate_examples(
        self, images: np.ndarray, classes: np.ndarray, chosen: list[int]
    ) -> Iterator[tuple[int, dict[str, Any]]]:
        for key, place in enumerate(chosen):
            pixels = {"image": images[place], "class_map": classes[place]}
            yield key, {**{name: png(value[..., None]) for name, value in pixels.items()}, "slice": str(place)}


def slices(
    t1: Volume, grey: Volume, white: Volume
) -> tuple[UInt8[np.ndarray, "slices height width"], UInt8[np.ndarray, "slices height width"]]:
    """Returns images and classes of the axial slices with grey or white matter, from below, by volumes at 1 mm.

    Axes rise to the right, to the front and to the top. Probabilities are 0 to 255. The middle of the matter is that of
    the slices, which are cut, or padded by 0, to `SIZE`.
    """
    likely = np.stack([shrink(grey), shrink(white)])
    classes = np.where(likely.max(0) > 255 / 2, 1 + likely.argmax(0), 0).astype(np.uint8)
    image = np.round(shrink(t1)).astype(np.uint8)
    there = classes > 0
    kept = np.flatnonzero(there.any((0, 1)))
    return tuple(
        _window(np.flip(volume.transpose(2, 1, 0), 1), np.flip(there.any(2).T, 0))[kept] for volume in (image, classes)
    )


def shrink(volume: Volume) -> Float[np.ndarray, "width depth slices"]:
    """Returns the means of 2x2x2 voxels; an odd last voxel is left out."""
    right, front, top = (side // 2 for side in volume.shape)
    return volume[: 2 * right, : 2 * front, : 2 * top].reshape(right, 2, front, 2, top, 2).mean((1, 3, 5))


def split(count: int) -> dict[str, list[int]]:
    """Divides slices: the middle block is "test", those `GAP` away from it or nearer are left out, others "train"."""
    first = (count - TEST) // 2
    train = [*range(max(0, first - GAP)), *range(first + TEST + GAP, count)]
    return {"train": train, "test": list(range(first, first + TEST))}


def _window(volume: np.ndarray, there: Bool[np.ndarray, "height width"]) -> np.ndarray:
    """Cuts [slices, height, width] to `SIZE` around the middle of what is there, padded by 0."""
    padded = np.pad(volume, ((0, 0), *((side, side) for side in SIZE)))
    for axis, side in enumerate(SIZE):
        found = np.flatnonzero(there.any(1 - axis))
        start = side + (int(found[0]) + int(found[-1]) + 1 - side) // 2
        padded = padded.take(range(start, start + side), axis=1 + axis)
    return padded


def _decode(content: bytes) -> Volume:
    import nibabel

    return np.asanyarray(nibabel.Nifti1Image.from_bytes(gzip.decompress(content)).dataobj)
