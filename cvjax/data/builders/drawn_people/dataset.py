"""`drawn_people`: drawn people on crops of photographs, with boxes, masks and COCO's joints."""

import dataclasses
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds
from jaxtyping import UInt8

from cvjax.data import people
from cvjax.data.builders import photo_crops, photos
from cvjax.data.builders.composition import background
from cvjax.data.builders.drawn_people.figure import POSES
from cvjax.data.builders.drawn_people.scenes import Crowd, compose
from cvjax.data.builders.embedded import Embedded, png

# Without the test photographs of `photos` that show people, who would be without joints.
SPLITS = {"train": tuple(photos.TRAIN), "test": ("chelsea", "brick", "grass", "gravel", "retina", "moon")}
SEED = 17  # apart from the random streams of `digit_scenes`


@dataclasses.dataclass
class Scenes(tfds.core.BuilderConfig):
    """A variant: its crowds, and their number in each split."""

    crowd: Crowd = dataclasses.field(default_factory=Crowd)
    train: int = 4000
    test: int = 600


APART = Crowd(most=3, tallest=0.9, seen=0.85, inside=1.0, facing=0.8)


class DrawnPeople(Embedded):
    """Scenes of one to four people who stand, walk, sit and so on, partly hidden by each other and by themselves.

    Training and test share no photographs. Each scene has its own random stream. `keypoints` are for `data.keypoints`:
    COCO's joints as x and y in pixels, where (0.5, 0.5) is the middle of the first, and visibility: 1 where another
    person or a nearer part of the own body hides a joint, 2 where it is seen, and 0 outside of the scene. A box is
    tight around the part of the body that is inside of the scene, hidden or not; `mask`, for `data.masks`, holds the
    visible pixels, as `instances` does for all people, and `area` counts them. Of each person at least 60 % is inside
    of the scene, and at least 40 % is visible; in the variant `apart_64` all and 85 %.
    """

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        Scenes(name="64", description="64x64 pixels, one to four people"),
        Scenes(
            name="apart_64", description="one to three, whole and mostly apart, who mostly face the camera", crowd=APART
        ),
        Scenes(name="96", description="96x96", crowd=Crowd(96)),
        Scenes(name="128", description="128x128", crowd=Crowd(128)),
        Scenes(name="smoke", description="a few of 64x64", train=64, test=32),
    ]

    @property
    def most_boxes(self) -> int:
        """The most people of any scene."""
        return self.builder_config.crowd.most

    def _info(self) -> tfds.core.DatasetInfo:
        size = self.builder_config.crowd.size
        numbers = tfds.features.Image(shape=(size, size, 1), encoding_format="png")
        person = {
            "bbox": tfds.features.BBoxFeature(),
            "label": tfds.features.ClassLabel(names=["person"]),
            "area": np.float32,
            "keypoints": tfds.features.Tensor(shape=(len(people.JOINTS), 3), dtype=np.float32),
            "mask": numbers,
            "pose": tfds.features.ClassLabel(names=list(POSES)),
        }
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "objects": tfds.features.Sequence(person),
            "instances": numbers,  # 0 is background, 1 + r row r of `objects`
            "photograph": tfds.features.Text(),
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn people on crops of photographs.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in SPLITS}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        photographs, crowd = {name: read(name) for name in SPLITS[split]}, self.builder_config.crowd
        for key in range(getattr(self.builder_config, split)):
            generator = np.random.default_rng((SEED, list(SPLITS).index(split), key))
            name = str(generator.choice(list(photographs)))
            scene = compose(generator, background(generator, photographs[name], crowd.size), crowd)
            yield (
                key,
                {
                    "image": png(scene["image"]),
                    "instances": png(scene["instances"][..., None]),
                    "objects": [_annotation(person, crowd.size) for person in scene["objects"]],
                    "photograph": name,
                },
            )


def read(name: str) -> UInt8[np.ndarray, "height width 3"]:
    """Reads a photograph of `SPLITS`, in RGB."""
    return (photos if name in photos.TRAIN | photos.TEST else photo_crops).read(name)


def _annotation(person: dict[str, Any], size: int) -> dict[str, Any]:
    """Writes a person as TFDS's detection datasets do."""
    left, top, right, bottom = (person["box"] / size).tolist()
    return {
        "bbox": tfds.features.BBox(ymin=top, xmin=left, ymax=bottom, xmax=right),
        "label": 0,
        "area": person["area"],
        "keypoints": person["keypoints"],
        "mask": png(person["mask"][..., None] * np.uint8(255)),
        "pose": person["pose"],
    }
