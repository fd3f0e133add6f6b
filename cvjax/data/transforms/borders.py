"""U-Net's borders between objects, from the map `instances`, whose numbers are objects and 0 is background.

Ronneberger et al., "U-Net: Convolutional Networks for Biomedical Image Segmentation", MICCAI 2015, section 3. The
weights are computed after the transforms that move pixels, since those change distances.
"""

import dataclasses
from collections.abc import Sequence

import cv2
import numpy as np
import scipy
from jaxtyping import Bool, Float32, Integer

from cvjax.data.transforms.geometry import Image
from cvjax.data.transforms.scene import INSTANCES, Scene
from cvjax.errors import UserError

Map = Integer[np.ndarray, "height width"]


def weigh_borders(
    instances: Map, w0: float = 10.0, sigma: float = 5.0, balance: Float32[np.ndarray, "height width"] | float = 1.0
) -> Float32[np.ndarray, "height width"]:
    """Weighs pixels by how narrow the background is there: equation 2, w_c + w0 exp(-(d1 + d2)^2 / (2 sigma^2)).

    d1 and d2 are the distances in pixels to the nearest and the second nearest object. The second term is for the
    background alone, where it makes the borders between objects heavy, and is 0 with fewer than two objects. It is w0
    for a border without width and has fallen to w0 exp(-1/2) at a width of sigma. `balance` is w_c, for the classes.
    """
    nearest = np.full((2, *instances.shape), np.inf, np.float32)
    for number in np.unique(instances[instances > 0]):
        outside = (instances != number).astype(np.uint8)
        distance = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        nearest = np.sort(np.concatenate([nearest, distance[None]]), axis=0)[:2]
    narrow = np.exp(-(nearest.sum(0) ** 2) / (2 * sigma**2)) * (instances == 0)
    return (balance + w0 * narrow).astype(np.float32)


def find_borders(instances: Map, reach: int = 1) -> Bool[np.ndarray, "height width"]:
    """Returns the pixels of objects with another object within `reach` rows and columns; 1: the eight neighbours."""
    far, size = np.iinfo(instances.dtype).max, 2 * reach + 1
    lowest = scipy.ndimage.minimum_filter(np.where(instances > 0, instances, far), size)
    highest = scipy.ndimage.maximum_filter(instances, size)
    return (instances > 0) & ((lowest != instances) | (highest != instances))


def border_weights(
    image: Image,
    w0: float = 10.0,
    sigma: float = 5.0,
    class_weights: Sequence[float] = (),
    class_map: str = "class_map",
    name: str = "border_weights",
) -> Scene:
    """Adds the weights of the loss that `weigh_borders` makes of the map `instances`, under `name`.

    In a batch they are [batch, height, width, 1]. `class_weights` has w_c of each class of the map `class_map`; (): 1.
    """
    balance = 1.0
    if class_weights:
        classes = _find(image, class_map)
        known = classes < len(class_weights)
        balance = np.where(known, np.asarray(class_weights, np.float32)[np.where(known, classes, 0)], np.float32(1))
    weights = weigh_borders(_find(image, INSTANCES), w0, sigma, balance)
    return dataclasses.replace(image, images={**image.images, name: weights[..., None]})


def separate(image: Image, class_map: str = "class_map", value: int = 0) -> Scene:
    """Paints a border between objects that touch: `find_borders` of the map `instances` become background.

    They are painted 0 in `instances`, and `value`, the class of the background, in the map `class_map`.
    """
    instances = _find(image, INSTANCES)
    borders = find_borders(instances)
    painted = {class_map: _find(image, class_map), INSTANCES: instances}
    values = {class_map: value, INSTANCES: 0}
    maps = {name: np.where(borders, values[name], numbers).astype(numbers.dtype) for name, numbers in painted.items()}
    return dataclasses.replace(image, maps={**image.maps, **maps})


def _find(image: Image, name: str) -> Map:
    if not isinstance(image, Scene) or name not in image.maps:
        where = "data.keep" if name == INSTANCES else "data.class_maps"
        raise UserError(f"there is no map {name!r}; {where} has to name it")
    return image.maps[name]
