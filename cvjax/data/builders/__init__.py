"""TFDS builders over images that ship with the dependencies: nothing is downloaded, TensorFlow is not needed."""

from collections.abc import Mapping
from types import MappingProxyType

from cvjax.data.builders.digit_crops import DigitCrops
from cvjax.data.builders.digit_scenes import DigitScenes
from cvjax.data.builders.digits import Digits
from cvjax.data.builders.embedded import Embedded, silenced
from cvjax.data.builders.photos import Photos

__all__ = ["EMBEDDED", "DigitCrops", "DigitScenes", "Digits", "Embedded", "Photos", "names", "silenced"]

EMBEDDED: Mapping[str, type[Embedded]] = MappingProxyType(
    {builder.name: builder for builder in (Digits, DigitCrops, DigitScenes, Photos)}
)


def names() -> list[str]:
    """Lists the names for `data.name` that need no download: builders and their variants."""
    variants = [f"{base}/{config}" for base, builder in EMBEDDED.items() for config in builder.builder_configs]
    return [*EMBEDDED, *variants]
