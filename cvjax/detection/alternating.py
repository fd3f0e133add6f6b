"""Faster R-CNN by the alternating training of its paper: Ren et al., 2015 (arXiv:1506.01497), section 3.2.

Four runs, each of which borrows the networks that it does not train from those before it:

    1  the region proposal network, and features for it
    2  a detector with features of its own, on the proposals of run 1
    3  the region proposal network again, on the features of run 2, which stay as they are from here on
    4  the detector's last layers, on the same features and the proposals of run 3

The fourth is Faster R-CNN.
"""

import dataclasses
from collections.abc import Iterable, Mapping
from functools import partial
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Key

from cvjax.core import Batch, Metrics, Pictures, Recipe, State
from cvjax.detection.detector import Detection, Found, Images, draw
from cvjax.detection.faster_rcnn import (
    CLASSIFYING,
    DETECTION,
    FEATURES,
    PAPER,
    PROPOSING,
    Apply,
    Classifying,
    FasterRCNN,
    Features,
    Levels,
    Losses,
)
from cvjax.detection.rpn import Proposals, Proposing
from cvjax.metrics import proposals as coverage
from cvjax.signature import Count, Share

PROPOSER = "proposer_"  # before the names of the networks of run 1 that compute features for proposals in run 2


@dataclasses.dataclass(frozen=True)
class ProposalStep(FasterRCNN):
    """Runs 1 and 3: the region proposal network.

    Attributes:
      fixed: the features stay as they are.
    """

    fixed: bool

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        return self.maps.networks | {"rpn": self.rpn}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the networks that are not trained."""
        return tuple(self.maps.networks) if self.fixed else ()

    @property
    def shown_classes(self) -> tuple[str, ...]:
        """Proposals are of no class."""
        return ("object",)

    def visit(self, apply: Apply, images: Images) -> None:
        """Calls each network once, on an input of the right shape."""
        apply("rpn", self.maps(apply, images)[0])

    def losses(self, key: Key[Array, ""], apply: Apply, batch: Batch) -> tuple[Losses, Metrics]:
        """Computes the losses of the region proposal network."""
        keys = jax.random.split(key, len(batch["image"]))
        return self.proposal_losses(keys, self.outputs(apply, self.maps(apply, batch["image"])), batch)

    @partial(jax.jit, static_argnums=0)
    def detect(self, state: State, images: Images) -> Found:
        """Returns proposals as detections."""
        apply = partial(self.call, state)
        boxes, mask, scores = self.propose(apply, self.maps(apply, images), images)
        return {"boxes": boxes, "scores": scores, "labels": jnp.zeros(mask.shape, jnp.int32), "detected": mask}

    def score(self, rows: Iterable[tuple[Mapping, Mapping]]) -> dict[str, float]:
        """Computes the recall of proposals at IoUs of 0.5 and 0.7, and the average recall; -1 without objects."""
        found = []
        for batch, outputs in rows:
            given = {**batch, "proposals": outputs["boxes"], "proposals_mask": outputs["detected"]}
            found.append(coverage.best_overlaps([given], (outputs["boxes"].shape[1],)))
        best = np.concatenate(found)
        values = coverage.recall(best), coverage.recall(best, 0.7), coverage.average_recall(best)
        names = ("proposal_recall", "proposal_recall_70", "proposal_average_recall")
        return {name: float(value[0]) if len(best) else -1.0 for name, value in zip(names, values, strict=True)}

    def visualise(self, state: State, batch: Batch, key: Key[Array, ""]) -> Pictures:
        """Draws true boxes beside proposals of a probability of at least 0.3."""
        unnamed = {**batch, "labels": jnp.zeros_like(batch["labels"])}
        return {"proposals": draw(unnamed, self.detect(state, batch["image"]), self.shown_classes)}


@dataclasses.dataclass(frozen=True)
class RegionStep(FasterRCNN):
    """Runs 2 and 4: the detector, on the proposals of another run.

    Attributes:
      fixed: the features stay as they are, and are those of the proposals, too.
    """

    fixed: bool

    @property
    def networks(self) -> dict[str, nn.Module]:
        """The networks, by their names in the state."""
        own = self.maps.networks
        others = {} if self.fixed else {f"{PROPOSER}{name}": net for name, net in own.items()}
        return own | others | {"rpn": self.rpn, "head": self.head}

    @property
    def frozen(self) -> tuple[str, ...]:
        """Names of the networks that are not trained."""
        prefix = "" if self.fixed else PROPOSER
        return (*(f"{prefix}{name}" for name in self.maps.networks), "rpn")

    def visit(self, apply: Apply, images: Images) -> None:
        """Calls each network once, on an input of the right shape."""
        super().visit(apply, images)
        if not self.fixed:
            self.maps(lambda name, x: apply(f"{PROPOSER}{name}", x), images)

    def losses(self, key: Key[Array, ""], apply: Apply, batch: Batch) -> tuple[Losses, Metrics]:
        """Computes the losses of regions drawn among the proposals."""
        keys, levels = jax.random.split(key, len(batch["image"])), self.maps(apply, batch["image"])
        boxes, mask, _ = self.propose(apply, levels, batch["image"], train=True)
        return self.region_losses(keys, apply, levels, boxes, mask, batch)

    def propose(self, apply: Apply, levels: Levels, images: Images, train: bool = False) -> Proposals:
        """Returns the proposals of images, by the features of run 1 as long as those of this run are trained."""
        if not self.fixed:
            levels = self.maps(lambda name, x: apply(f"{PROPOSER}{name}", x), images)
        return super().propose(apply, levels, images, train)


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    step: Literal[1, 2, 3, 4],
    features: Features = FEATURES,
    proposing: Proposing = PROPOSING,
    classifying: Classifying = CLASSIFYING,
    ema: Share = 0.0,
    detection: Detection = DETECTION,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes one of the four runs of alternating training, by default of the paper's network.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      step: which of the runs: 1 and 3 train proposals, 2 and 4 the detector. What they do not train is to be borrowed.
      features: the network of features.
      proposing: how regions are proposed. Runs 2 and 4 do not use its `anchors`.
      classifying: how regions are read and classified, in runs 2 and 4.
      ema: share of the moving average that each step keeps; 0: no average.
      detection: how detections are selected, in runs 2 and 4.
      optimiser: as in `cvjax.optim.build`.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.detection.figures` and, where proposals are trained,
      `proposal_recall`, `proposal_recall_70` and `proposal_average_recall`.

    Raises:
      UserError: as `cvjax.detection.faster_rcnn.recipe`.
    """
    kind = ProposalStep if step in (1, 3) else RegionStep
    given = (shape, classes, features, proposing, classifying, ema, detection, optimiser)
    return Recipe.of(kind.of(*given, fixed=step > 2))
