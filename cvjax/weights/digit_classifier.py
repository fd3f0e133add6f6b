"""The frozen digit classifier that judges generated digits: its weights, and how they were made.

    python train.py --config=configs/classifier_digits.py --workdir=runs/classifier_digits
    python -m cvjax.programs.freeze_judge --run=runs/classifier_digits

trains it on the training split of `digits` and writes the weights after the last step to `digit_classifier.npz`. They
do not change: every FID and Inception Score on digits depends on them, and figures by two classifiers do not compare.
"""

import functools
import json
from pathlib import Path
from typing import Any

import flax
import numpy as np
from jaxtyping import PyTree

from cvjax.nets.digit_classifier import DigitClassifier

FILE = Path(__file__).with_suffix(".npz")
NET = DigitClassifier()


@functools.cache
def load() -> PyTree:
    """Returns the frozen parameters, float32 NumPy arrays, for `NET.apply({"params": load()}, images)`."""
    with np.load(FILE) as arrays:
        return flax.traverse_util.unflatten_dict({k: arrays[k] for k in arrays.files if k != "metadata"}, sep="/")


def metadata() -> dict[str, Any]:
    """Returns where the weights come from: data, command, config, seed, versions, and accuracy on the test split."""
    with np.load(FILE) as arrays:
        return json.loads(str(arrays["metadata"]))
