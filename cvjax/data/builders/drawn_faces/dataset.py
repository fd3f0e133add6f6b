"""`drawn_faces`: many views of many people, drawn from parameters, with landmarks, regions and all parameters."""

import dataclasses
import re
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow_datasets as tfds

from cvjax.data.builders import photos
from cvjax.data.builders.drawn_faces.drawing import LANDMARKS, check_size, draw
from cvjax.data.builders.drawn_faces.painting import REGIONS
from cvjax.data.builders.drawn_faces.parameters import WIDTHS, Faces, sample_identities, sample_views
from cvjax.data.builders.embedded import Embedded, png
from cvjax.errors import UserError

SEED = 11
LEAST, MOST = 3, 100_000  # identities: one for each split, and what a folder of one's disk holds
HELD_OUT = 10  # every tenth identity is of the validation split, and another tenth of the test split
TOGETHER = 64  # identities that are drawn at a time


@dataclasses.dataclass
class People(tfds.core.BuilderConfig):
    """A variant: side of the pictures, number of people over all splits, and pictures of each."""

    size: int = 64
    identities: int = 2000
    views: int = 20

    def members(self) -> dict[str, range]:
        """Returns the people of each split; none is in two."""
        out = max(1, self.identities // HELD_OUT)
        first, second = self.identities - 2 * out, self.identities - out
        return {"train": range(first), "validation": range(first, second), "test": range(second, self.identities)}


class DrawnFaces(Embedded):
    """Faces of people with other poses, expressions, ages, glasses, beards, light and background in each view.

    A variant `drawn_faces/SIZE_IDENTITIESxVIEWS`, such as `drawn_faces/96_500x10`, has pictures of any size from 32 to
    256, of any number of people and views. No person is in two splits; the test split has other photographs behind.
    The label is the person. `landmarks` are for `data.points` with `exchange=drawing.EXCHANGE`, `regions` for
    `data.class_maps`; the rest are the fields of `Faces`, with which `draw` draws the same picture.
    """

    VERSION = tfds.core.Version("1.2.0")
    BUILDER_CONFIGS = [  # noqa: RUF012 (TFDS's own way)
        People(name="64", description="64x64 pixels, 20 views of 2,000 people"),
        *(People(name=str(size), size=size, description=f"{size}x{size}") for size in (32, 128, 256)),
        People(name="smoke", description="a few of 32x32", size=32, identities=20, views=6),
    ]
    splits = ("train", "validation", "test")

    @classmethod
    def find_variant(cls, name: str) -> People:
        """Returns a variant by its name, one of those listed or `SIZE_IDENTITIESxVIEWS`."""
        if name in cls.builder_configs:
            return cls.builder_configs[name]
        found = re.fullmatch(r"(\d+)_(\d+)x(\d+)", name)
        where = f"data.name='{cls.name}/{name}'"
        if not found:
            known = ", ".join(map(repr, cls.builder_configs))
            raise UserError(f"{where}: {cls.name} has no such variant. Known: {known}, or SIZE_IDENTITIESxVIEWS")
        size, identities, views = map(int, found.groups())
        check_size(size, where)
        for value, least, most, noun in ((identities, LEAST, MOST, "identities"), (views, 2, 1000, "views")):
            if not least <= value <= most:
                raise UserError(f"{where}: {value} {noun}; from {least} to {most} can be drawn")
        return People(
            name=name,
            size=size,
            identities=identities,
            views=views,
            description=f"{size}x{size}, {identities} identities, {views} views",
        )

    def _info(self) -> tfds.core.DatasetInfo:
        size, identities = self.builder_config.size, self.builder_config.identities
        numbers = {name: tfds.features.Tensor(shape=(width,), dtype=np.float32) for name, width in WIDTHS.items()}
        features = {
            "image": tfds.features.Image(shape=(size, size, 3), encoding_format="png"),
            "label": tfds.features.ClassLabel(names=[f"person {number}" for number in range(identities)]),
            "landmarks": tfds.features.Tensor(shape=(LANDMARKS, 2), dtype=np.float32),
            "regions": tfds.features.LabeledImage(labels=list(REGIONS), shape=(size, size, 1), encoding_format="png"),
            **numbers,
        }
        return tfds.core.DatasetInfo(
            builder=self,
            description="Drawn faces of people who differ, in views that differ.",
            features=tfds.features.FeaturesDict(features),
            disable_shuffling=True,
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Iterator]:
        return {split: self._generate_examples(split) for split in self.splits}

    def _generate_examples(self, split: str) -> Iterator[tuple[int, dict[str, Any]]]:
        config = self.builder_config
        people = config.members()[split]
        known = sample_identities(SEED, people.stop)
        for first in range(people.start, people.stop, TOGETHER):
            part = range(first, min(first + TOGETHER, people.stop))
            faces = views(config, part, known)
            images, landmarks, regions = draw(faces, config.size)
            for row in range(len(faces)):
                label = part[row // config.views]
                example = {
                    "image": png(images[row]),
                    "label": label,
                    "landmarks": landmarks[row],
                    "regions": png(regions[row][..., None]),
                    **{name: getattr(faces, name)[row] for name in WIDTHS},
                }
                yield label * config.views + row % config.views, example


def views(config: People, people: range, known: Faces) -> Faces:
    """Returns the parameters of all views of people, by their numbers in `known`; a person's are together."""
    own = known[people.start : people.stop]
    test = people.start >= config.members()["test"].start
    photographs = tuple(photos.TEST if test else photos.TRAIN)
    repeated = own[np.repeat(np.arange(len(people)), config.views)]
    return sample_views((SEED, people.start), repeated, photographs)
