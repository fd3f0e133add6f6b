"""TFDS builders over images inside installed packages: nothing is downloaded, TensorFlow is not needed.

`EMBEDDED` are made from what the dependencies ship, `FROM_PACKAGES` from packages that the user installs for them.
"""

from collections.abc import Mapping
from types import MappingProxyType

from cvjax.data.builders.brain import Brain
from cvjax.data.builders.digit_crops import DigitCrops
from cvjax.data.builders.digit_scenes import DigitScenes
from cvjax.data.builders.digits import Digits
from cvjax.data.builders.drawn_faces import DrawnFaces
from cvjax.data.builders.drawn_people import DrawnPeople
from cvjax.data.builders.embedded import Embedded, silenced
from cvjax.data.builders.lfw_faces import LfwFaces
from cvjax.data.builders.nuclei import Nuclei
from cvjax.data.builders.photo_crops import PhotoCrops
from cvjax.data.builders.photos import Photos
from cvjax.data.builders.shapes import Shapes
from cvjax.data.builders.textures import Textures

__all__ = [
    "EMBEDDED",
    "FROM_PACKAGES",
    "OURS",
    "Brain",
    "DigitCrops",
    "DigitScenes",
    "Digits",
    "DrawnFaces",
    "DrawnPeople",
    "Embedded",
    "LfwFaces",
    "Nuclei",
    "PhotoCrops",
    "Photos",
    "Shapes",
    "Textures",
    "names",
    "silenced",
]

EMBEDDED: Mapping[str, type[Embedded]] = MappingProxyType(
    {
        builder.name: builder
        for builder in (
            *(Digits, DigitCrops, DigitScenes, Photos, PhotoCrops, Shapes, Textures),
            *(DrawnFaces, DrawnPeople, LfwFaces),
        )
    }
)
FROM_PACKAGES: Mapping[str, type[Embedded]] = MappingProxyType({builder.name: builder for builder in (Nuclei, Brain)})
OURS: Mapping[str, type[Embedded]] = MappingProxyType({**EMBEDDED, **FROM_PACKAGES})


def names() -> list[str]:
    """Lists the names for `data.name` that need nothing installed or downloaded: builders and their variants."""
    variants = [f"{base}/{config}" for base, builder in EMBEDDED.items() for config in builder.builder_configs]
    return [*EMBEDDED, *variants]
