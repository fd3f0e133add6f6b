"""`digit_scenes`: real handwritten digits on crops of photographs, annotated for detection and segmentation."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.data.builders import photos
from cvjax.data.builders.composition import Glyphs, Layout, background, compose
from cvjax.data.builders.embedded import Embedded, png

SPLITS = {"train": photos.TRAIN, "test": photos.TEST}


@dataclasses.dataclass
class Scenes(tfds.core.BuilderConfig):
    """A variant: the layout of its scenes, and their number in each split."""

    layout: Layout = dataclasses.field(default_factory=Layout)
    train: int = 6000
    test: int = 1000


VARIANTS = (
    Scenes(name="64", description="64x64 pixels, 1 to 5 digits, turned and partly hidden"),
    Scenes(
        name="plain_64", description="the same upright and side by side", layout=Layout(degrees=0.0, occlusion=False)
    ),
    Scenes(
        name="plain_64_more",
        description="plain_64 with twice as many training scenes, the same and others",
        layout=Layout(degrees=0.0, occlusion=False),
        train=12_000,
    ),
    Scenes(
        name="pairs_64",
        description="64x64 pixels, two large digits, upright and side by side",
        layout=Layout(least=2, most=2, smallest=20, degrees=0.0, occlusion=False),
        train=64,
        test=600,
    ),
    Scenes(name="128", description="128x128, 1 to 8 digits", layout=Layout(128, most=8, largest=56)),
    Scenes(name="256", description="256x256, 1 to 12 digits", layout=Layout(256, 12, 16, 112)),
    Scenes(name="smoke", description="a few of 64x64", train=64, test=32),
)


class DigitScenes(Embedded):
    """Scenes of one to several digits of `digits`, upscaled smoothly, on crops of the photographs of `photos`.

    Training and test share neither digits nor photographs: both follow the splits of those two datasets. Each scene has
    its own random stream. A digit's box is the tight box of the whole digit, hidden parts included, clipped to the
    scene; its mask in `instances` holds the visible pixels, and `area` counts them. `is_difficult` marks digits of
    which less than 40 % is visible; all others show at least 75 %, enough to read them. Captions leave the difficult
    ones out. `id` is a digit's row in `sklearn.datasets.load_digits`.
    """

    VERSION = tfds.core.Version("1.1.0")
    BUILDER_CONFIGS = list(VARIANTS)  # noqa: RUF012 (TFDS's own way)

    @property
    def most_boxes(self) -> int:
        """The most digits of any scene."""
        return self.builder_config.layout.most

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.layout.size
        numbers = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
        digit = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=[str(digit) for digit in range(10)]),
            "is_difficult": np.bool_,
            "area": np.float32,
            "id": np.int64,
        }
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "objects": tfds.features.Sequence(digit),
            "class_map": numbers,  # 0 is background, 1 + d the digit d
            "instances": numbers,  # 0 is background, 1 + r row r of `objects`
            "caption": tfds.features.Text(),
            "photograph": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Handwritten digits on crops of photographs.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        photographs = {name: photos.read(name) for name in SPLITS[split]}
        glyphs, layout = Glyphs(split), self.builder_config.layout
        for key in range(getattr(self.builder_config, split)):
            generator = np.random.default_rng((list(SPLITS).index(split), key))
            name = list(photographs)[generator.integers(len(photographs))]
            scene = compose(generator, background(generator, photographs[name], layout.size), glyphs, layout)
            pictures = {"image": scene["image"], **{map: scene[map][..., None] for map in ("class_map", "instances")}}
            yield (
                key,
                {
                    **{feature: png(pixels) for feature, pixels in pictures.items()},
                    "objects": [_annotation(digit, layout.size) for digit in scene["objects"]],
                    "caption": scene["caption"],
                    "photograph": name,
                },
            )


def _annotation(digit: dict[str, Any], size: int) -> dict[str, Any]:
    """Writes an object as TFDS's detection datasets do."""
    left, top, right, bottom = (digit["box"] / size).tolist()
    return {
        "bbox": tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right),
        "label": digit["label"],
        "is_difficult": digit["difficult"],
        "area": digit["area"],
        "id": digit["row"],
    }
