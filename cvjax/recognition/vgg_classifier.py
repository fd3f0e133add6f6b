"""A VGG classifier of images: Simonyan & Zisserman, Very Deep Convolutional Networks, 2015 (arXiv:1409.1556).

Its layers have names and `capture` returns their activations, which makes it a network to look into: see
`cvjax.interpret`. Training, figures and pictures are those of `cvjax.recognition.image_classifier`.
"""

from collections.abc import Mapping
from typing import Any, Literal

from cvjax import optim
from cvjax.core import Recipe, class_names
from cvjax.nets.vgg import VGG
from cvjax.recognition.image_classifier import ImageClassifier
from cvjax.signature import Count, Share

# Section 3.1.
PAPER = {"name": "sgd", "learning_rate": 0.01, "momentum": 0.9, "weight_decay": 5e-4}


def recipe(
    shape: tuple[Count, Count, Count],
    classes: Count | tuple[str, ...],
    depth: Literal[11, 13, 16, 19] = 16,
    width: Count = 64,
    head: Literal["classifier", "mean"] = "classifier",
    batch_norm: bool = False,
    hidden: Count = 4096,
    dropout: Share = 0.5,
    label_smoothing: Share = 0.0,
    ema: Share = 0.0,
    optimiser: Mapping[str, Any] = PAPER,
) -> Recipe:
    """Makes a classifier of images. The defaults are the paper's VGG-16 for ImageNet.

    Args:
      shape: height, width, channels of the images.
      classes: number of classes, or their names.
      depth, width, head, batch_norm, hidden, dropout: as in `cvjax.nets.vgg.VGG`.
      label_smoothing: share of each target spread over all classes.
      ema: share of the averaged network, the one that classifies, that each step keeps, as in `core.moving_average`;
        0: none.
      optimiser: as `cvjax.optim.build` takes it.

    Returns:
      The recipe. Its figures are those of `cvjax.metrics.classification.figures`.
    """
    names = class_names(classes)
    net = VGG(depth, batch_norm, head=head, classes=len(names), width=width, hidden=hidden, dropout=dropout)
    return Recipe.of(ImageClassifier(net, tuple(shape), names, label_smoothing, ema, optim.build(optimiser)))
