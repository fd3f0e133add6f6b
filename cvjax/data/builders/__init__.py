"""TFDS builders over images that ship with the dependencies: nothing is downloaded, TensorFlow is not needed."""

from cvjax.data.builders.digits import Digits
from cvjax.data.builders.embedded import Embedded, silenced
from cvjax.data.builders.photos import Photos

__all__ = ["Digits", "Embedded", "Photos", "silenced"]
