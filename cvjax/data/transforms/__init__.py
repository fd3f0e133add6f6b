"""Image transforms on the host: plain functions (image, ...) -> image on float32 [height, width, channels] in [0, 1].

Random ones take a `numpy.random.Generator` called `generator` first. Every function named in `__all__` can be named as
the `op` of `data.transforms`.
"""

from cvjax.data.transforms.colour import (
    adjust_brightness,
    adjust_contrast,
    adjust_hue,
    adjust_saturation,
    color_jitter,
    grayscale,
    lighting,
    normalise,
    remove_background,
)
from cvjax.data.transforms.geometry import (
    center_crop,
    crop,
    flip,
    pad,
    random_crop,
    random_resized_crop,
    random_shift,
    resize,
    rotate,
)

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "center_crop",
    "color_jitter",
    "crop",
    "flip",
    "grayscale",
    "lighting",
    "normalise",
    "pad",
    "random_crop",
    "random_resized_crop",
    "random_shift",
    "remove_background",
    "resize",
    "rotate",
]
