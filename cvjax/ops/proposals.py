"""Regions of an image that may show an object, found without learning, for detectors that classify regions."""

import cv2
import numpy as np
from jaxtyping import Float32

from cvjax.errors import UserError


def selective_search(
    image: Float32[np.ndarray, "height width channels"], quality: bool = False, smallest: int = 8, most: int = 2000
) -> Float32[np.ndarray, "proposals 4"]:
    """Proposes regions by merging superpixels that look alike: Uijlings et al., Selective Search, 2013, by OpenCV.

    OpenCV orders the regions at random; here the largest come first, so that the result is a function of the image.
    Returns boxes that are all different. Raises a UserError for an image of neither one channel nor three.

    Args:
      quality: search with more starting points and measures of likeness: twice the proposals in three times the time.
      smallest: least width and height in pixels.
      most: largest number of proposals.
    """
    if image.shape[2] not in (1, 3):
        raise UserError(f"selective search takes images of one channel or three, not {image.shape[2]}")
    pixels = np.round(np.clip(image, 0, 1) * 255).astype(np.uint8)
    search = cv2.ximgproc.segmentation.createSelectiveSearchSegmentation()
    search.setBaseImage(np.ascontiguousarray(np.broadcast_to(pixels, (*image.shape[:2], 3))[..., ::-1]))
    if quality:
        search.switchToSelectiveSearchQuality()
    else:
        search.switchToSelectiveSearchFast()
    corners = np.asarray(search.process(), np.float32).reshape(-1, 4)  # x, y, width, height
    corners = np.unique(corners[(corners[:, 2:] >= smallest).all(axis=1)], axis=0)
    order = np.argsort(-np.prod(corners[:, 2:], axis=1), kind="stable")[:most]
    boxes = corners[order]
    boxes[:, 2:] += boxes[:, :2]
    return boxes
