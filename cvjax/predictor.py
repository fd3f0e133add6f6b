"""A recipe's `predict` on images of any size: resized for the network, boxes and maps of classes brought back."""

import dataclasses
import itertools
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import jax
import numpy as np
from jaxtyping import Float32

from cvjax.core import Recipe, State, class_names
from cvjax.data import pipeline, transforms
from cvjax.data.annotations import Annotations
from cvjax.data.class_maps import VOID
from cvjax.data.transforms.scene import Scene
from cvjax.errors import UserError

SEGMENTATION = "segmentation"  # the output that is the class of each pixel
SMALLEST = 1e-3  # side in pixels of a box that counts as a detection


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A user's image, `original`, and the same at the network's size, `image`.

    Attributes:
      scale: network pixels per original pixel, for x, y, x, y.
      shift: the original's upper left corner in the network's image, as x, y, x, y.
    """

    original: Float32[np.ndarray, "height width channels"]
    image: Float32[np.ndarray, "rows columns bands"]
    scale: Float32[np.ndarray, "4"]
    shift: Float32[np.ndarray, "4"]


def classes_of(description: Mapping[str, Any]) -> tuple[str, ...]:
    """Returns the class names in a run's config.json, or those of the one borrowed network with classes, or ()."""
    own = class_names(description["config"]["recipe"].get("classes") or ())
    others = [network["classes"] for network in description.get("networks", {}).values() if network["classes"]]
    return own or (tuple(others[0]) if len(others) == 1 else ())


class Predictor:
    """Applies a trained system to images of any size, in batches of fixed shape."""

    def __init__(
        self,
        description: Mapping[str, Any],
        recipe: Recipe,
        state: State,
        batch: int,
        inputs: Mapping[str, Any] | None = None,
        seed: int = 0,
    ):
        """Builds the run's evaluation transforms.

        Args:
          description: contents of the run's config.json.
          inputs: other inputs of `predict`, the same for every image.
        """
        described = description["config"]["data"]
        built = pipeline.build(described["eval_transforms"], annotations=Annotations.of(described))
        self.transforms = dataclasses.replace(
            built, ops=tuple(op for op in built.ops if op.name not in transforms.TRUTH)
        )
        self.shape = tuple(description["batch"]["image"][0][1:])
        self.any_size = recipe.any_size
        self.classes = recipe.shown_classes or classes_of(description)
        # Objects keep their proportions; an output image should have no margins.
        proportions = described.get("max_boxes") or described.get("class_maps")
        self.resize = transforms.letterbox if proportions else transforms.resize
        self.batch = 1 if recipe.any_size else batch
        self.state, self.predict = state, recipe.predict
        self.inputs, self.key = dict(inputs or {}), jax.random.key(seed)

    def prepare(self, original: Float32[np.ndarray, "height width channels"]) -> Prepared:
        """Transforms an image in [0, 1] to the network's shape; raises a UserError if a transform rejects it.

        Where a system takes any size, the image keeps its own, and only its channels are those of the network.
        """
        if self.any_size:
            return Prepared(original, self._with_channels(original), np.ones(4, np.float32), np.zeros(4, np.float32))
        height, width = original.shape[:2]
        corners = np.float32([[0.4 * width, 0.4 * height, 0.6 * width, 0.6 * height]])  # inside any sensible crop
        scene = Scene(original, corners, {"area": np.ones(1, np.float32)})
        scene = self.transforms(scene, np.random.default_rng(0))
        if scene.shape[:2] != self.shape[:2]:
            scene = self.resize(scene, size=self.shape[:2])
        if "noise" in self.inputs and scene.shape[:2] != (height, width):
            raise UserError(
                f"resizing from {height} x {width} to the network's {self.shape[0]} x {self.shape[1]} pixels changes "
                "the deviation of its noise, and --noise would be wrong: give the noisy image at the network's size."
            )
        if len(scene.boxes) == 0:
            raise UserError("data.eval_transforms crop away the middle of this image")
        scale = np.tile((scene.boxes[0, 2:] - scene.boxes[0, :2]) / (corners[0, 2:] - corners[0, :2]), 2)
        image = self._with_channels(scene.image)
        return Prepared(original, image, scale, scene.boxes[0] - corners[0] * scale)

    def _with_channels(self, image: np.ndarray) -> np.ndarray:
        """An image in grey or in colour, as the network takes it."""
        if self.shape[2] == 1 and image.shape[2] == 3:
            return transforms.grayscale(image, channels=1)
        return np.repeat(image, 3, axis=2) if self.shape[2] == 3 and image.shape[2] == 1 else image

    def __call__(self, images: Iterable[Prepared]) -> Iterator[tuple[Prepared, dict[str, np.ndarray]]]:
        """Yields each image with its outputs, holding one batch in memory at a time.

        Detections come without padding, their boxes in pixels of the original and clipped to it. Those that lie in the
        margins of the network's image are dropped. Their `keypoints` are in pixels of the original too. Their `masks`
        stay as the network has them, inside of `mask_boxes`: the boxes before they were clipped. The map `segmentation`
        has the original's size, and void where the transforms crop the image.
        """
        images, further = iter(images), {}
        for name, value in self.inputs.items():
            further[name] = np.repeat(np.asarray(value)[None], self.batch, axis=0)
        for call in itertools.count():
            chunk = list(itertools.islice(images, self.batch))
            if not chunk:
                return
            key = jax.random.fold_in(self.key, call)
            rows = np.stack([prepared.image for prepared in chunk])
            padded = np.concatenate([rows, np.repeat(rows[-1:], self.batch - len(rows), axis=0)])
            outputs = jax.device_get(self.predict(self.state, {"image": padded, **further}, key))
            for row, prepared in enumerate(chunk):
                mine = {name: value[row] for name, value in outputs.items()}
                if SEGMENTATION in mine:
                    mine[SEGMENTATION] = _to_original_size(mine[SEGMENTATION], prepared)
                yield prepared, _to_original_pixels(mine, prepared) if "detected" in mine else mine


def _to_original_pixels(found: Mapping[str, np.ndarray], prepared: Prepared) -> dict[str, np.ndarray]:
    real = {name: value[found["detected"]] for name, value in found.items() if name != "detected"}
    height, width = prepared.original.shape[:2]
    boxes = (real["boxes"] - prepared.shift) / prepared.scale
    if "masks" in real:
        real["mask_boxes"] = boxes
    if "keypoints" in real:
        places = (real["keypoints"][..., :2] - prepared.shift[:2]) / prepared.scale[:2]
        real["keypoints"] = np.concatenate([places, real["keypoints"][..., 2:]], axis=-1)
    real["boxes"] = np.clip(boxes, 0, np.float32([width, height, width, height]))
    inside = (real["boxes"][:, 2:] - real["boxes"][:, :2] > SMALLEST).all(1)
    return {name: value[inside] for name, value in real.items()}


def _to_original_size(numbers: np.ndarray, prepared: Prepared) -> np.ndarray:
    """Returns the class that the network's nearest pixel has at each of the original's, void outside its image."""
    back = np.full(prepared.original.shape[:2], VOID, numbers.dtype)
    places, inside = [], []
    for axis, old, new in zip((1, 0), back.shape, numbers.shape, strict=True):
        place = np.floor((np.arange(old) + 0.5) * prepared.scale[axis] + prepared.shift[axis]).astype(int)
        inside.append(np.flatnonzero((place >= 0) & (place < new)))
        places.append(place[inside[-1]])
    back[np.ix_(*inside)] = numbers[np.ix_(*places)]
    return back
