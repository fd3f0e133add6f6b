"""Detectors that find objects among given regions, as Girshick et al., R-CNN, 2014 (arXiv:1311.2524), began.

The regions are proposals of the dataset, `data.derive.proposals`; only for images of one's own are they searched here.
"""

import abc
import dataclasses
import functools
import json
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Float, Key

from cvjax.core import Batch, Pictures, State, check_images
from cvjax.data.derive import Derived
from cvjax.detection.detector import Candidates, Detector, Found, Images, draw, select
from cvjax.errors import UserError
from cvjax.metrics import proposals as coverage
from cvjax.ops import boxes as box_ops

Regions = Float[Array, "batch regions 4"]
Present = Bool[Array, "batch regions"]

SEARCH = {"function": "cvjax.ops.proposals:selective_search", "kind": "boxes", "max_boxes": 2000}


@dataclasses.dataclass(frozen=True)
class ProposalDetector(Detector):
    """Base of detectors that find objects among proposals; `search` is the recipe's argument as JSON."""

    search: str

    @abc.abstractmethod
    def find(self, state: State, images: Images, regions: Regions, present: Present) -> Candidates:
        """Finds candidates among regions: boxes xyxy in pixels, scores in [0, 1], labels."""

    @functools.cached_property
    def proposals(self) -> Derived:
        """What proposes regions of images that are not the dataset's."""
        return Derived.of("proposals", json.loads(self.search))

    def check(self, batch: Batch) -> None:
        """Raises a UserError if a batch's images are not those that the recipe was built for, or have no proposals."""
        check_images(batch, self.shape)
        if not {"proposals", "proposals_mask"} <= batch.keys():
            raise UserError(
                "this system classifies proposals, which the batches lack: set config.data.derive.proposals, such as "
                f"{SEARCH}."
            )

    @partial(jax.jit, static_argnums=0)
    def detect(self, state: State, images: Images, regions: Regions, present: Present) -> Found:
        """Detects objects in images among regions of them."""
        found = self.find(state, images, regions, present)
        if self.detection.flip_test:
            mirrored = box_ops.flip(regions, self.shape[1])
            boxes, *others = self.find(state, images[:, :, ::-1], mirrored, present)
            both = zip(found, (box_ops.flip(boxes, self.shape[1]), *others), strict=True)
            found = tuple(jnp.concatenate(parts, axis=1) for parts in both)
        return select(*found, self.detection)

    def eval_step(self, state: State, batch: Batch, key: Key[Array, ""]) -> Found:
        """Detects objects in a batch among its proposals."""
        return self.detect(state, batch["image"], batch["proposals"], batch["proposals_mask"])

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the figures of `cvjax.metrics.detection.figures` and the proposals' recall at an IoU of 0.5."""
        covered = []

        def watched() -> Iterator[tuple[Mapping, Mapping]]:
            for batch, outputs in rows:
                covered.append(coverage.best_overlaps([batch], (batch["proposals"].shape[1],)))
                yield batch, outputs

        figures = super().score(watched())
        recall = float(coverage.recall(np.concatenate(covered))[0])
        return figures | {"proposal_recall": recall if np.isfinite(recall) else -1.0}

    def predict(self, state: State, inputs: Batch, key: Key[Array, ""]) -> Found:
        """Proposes regions of images, on the host, and detects objects among them."""
        images = inputs["image"]
        if isinstance(images, jax.core.Tracer):
            raise UserError("its regions are proposed outside of the network, so it cannot be exported; apply detects.")
        regions = np.zeros((len(images), self.proposals.max_boxes, 4), np.float32)
        present = np.zeros(regions.shape[:2], bool)
        for row, image in enumerate(np.asarray(images, np.float32)):
            boxes = self.proposals.compute(image)[: regions.shape[1]]
            regions[row, : len(boxes)], present[row, : len(boxes)] = boxes, True
        return self.detect(state, images, regions, present)

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws true boxes beside detections."""
        return {"detections": draw(batch, self.eval_step(state, batch, key), self.shown_classes)}


def as_json(search: Mapping[str, Any]) -> str:
    """Returns `config.recipe.search` as JSON; raises a UserError unless it is an entry of `data.derive` for boxes."""
    if (kind := Derived.of("proposals", search).kind) != "boxes":
        raise UserError(f'config.recipe.search.kind={kind!r}: proposals are boxes; expected "boxes", and `max_boxes`.')
    return json.dumps(dict(search), default=dict)
