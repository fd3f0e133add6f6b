import hashlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.weights import digit_classifier


def test_weights_are_the_frozen_ones():
    # Every published FID on digits depends on these bits.
    leaves = jax.tree.leaves(digit_classifier.load())
    digest = hashlib.sha256(b"".join(leaf.tobytes() for leaf in leaves)).hexdigest()
    assert {leaf.dtype for leaf in leaves} == {np.dtype(np.float32)}
    assert digest == "a0db1a52d0922c8d00b2ed00da30692945e8c7d501c418fcc222d5af2314f22f"
    assert digit_classifier.FILE.stat().st_size < 500_000


def test_weights_classify_the_test_digits_as_their_metadata_says():
    test = data.arrays("digits", "test")
    logits, _ = digit_classifier.NET.apply({"params": digit_classifier.load()}, jnp.asarray(test["image"]))
    accuracy = np.mean(np.argmax(logits, axis=1) == test["label"])
    about = digit_classifier.metadata()
    assert accuracy == pytest.approx(about["test_accuracy"]) and accuracy >= 0.99
    assert (about["seed"], about["step"], about["config"]["data"]["train_split"]) == (0, 2000, "train")
    assert "configs/classifier_digits.py" in about["command"]
