"""Image transforms on the host: plain functions (image, ...) -> image on float32 [height, width, channels] in [0, 1].

Random ones take a `numpy.random.Generator` called `generator` first. Every function named in `__all__` can be named as
the `op` of `data.transforms`.
"""

from cvjax.data.transforms.geometry import center_crop, crop, flip, pad, random_crop, resize

__all__ = ["center_crop", "crop", "flip", "pad", "random_crop", "resize"]
