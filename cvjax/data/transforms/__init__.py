"""Image transforms on the host: plain functions (image, ...) -> image on float32 [height, width, channels] in [0, 1].

Random ones take a `numpy.random.Generator` called `generator` first. Those that move pixels also take a `Scene`, an
image with its annotations, and move all of it. Every function in `__all__` can be the `op` of `data.transforms`.

A `size` is (height, width), or one number for both. A `value`, in [0, 1], fills what an image does not cover. Ranges
are (least, most). `method` is described at `resize`, `keep` at `crop` and `border` at `pad`.
"""

from cvjax.data.transforms.borders import border_weights, separate
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
from cvjax.data.transforms.geometry import canvas, center_crop, crop, letterbox, pad, resize
from cvjax.data.transforms.random_geometry import (
    elastic,
    flip,
    mosaic,
    random_crop,
    random_expand,
    random_quarter_turn,
    random_resized_crop,
    random_scale,
    random_scale_crop,
    random_shift,
    rotate,
)
from cvjax.data.transforms.text import random_text, tokenise

__all__ = [
    "adjust_brightness",
    "adjust_contrast",
    "adjust_hue",
    "adjust_saturation",
    "border_weights",
    "canvas",
    "center_crop",
    "color_jitter",
    "crop",
    "elastic",
    "flip",
    "grayscale",
    "letterbox",
    "lighting",
    "mosaic",
    "normalise",
    "pad",
    "random_crop",
    "random_expand",
    "random_quarter_turn",
    "random_resized_crop",
    "random_scale",
    "random_scale_crop",
    "random_shift",
    "random_text",
    "remove_background",
    "resize",
    "rotate",
    "separate",
    "tokenise",
]
TEXT = frozenset({"random_text", "tokenise"})  # the transforms of texts
TRUTH = frozenset({"border_weights", "separate"})  # those of maps alone, which an image to be predicted does not have
COLOUR = frozenset(  # the transforms that move no pixels
    {
        "adjust_brightness",
        "adjust_contrast",
        "adjust_hue",
        "adjust_saturation",
        "color_jitter",
        "grayscale",
        "lighting",
        "normalise",
        "remove_background",
    }
)
