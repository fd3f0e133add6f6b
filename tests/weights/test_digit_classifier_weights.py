import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.checkpoint import Checkpoints
from cvjax.core import State
from cvjax.errors import UserError
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


def test_export_refuses_what_is_no_finished_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        digit_classifier.export(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(UserError, match="checkpoints"):
        digit_classifier.export(tmp_path)


def test_export_writes_the_last_weights_of_a_run_and_where_they_come_from(tmp_path):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, digit_classifier.load())
    state = State(step=jnp.int32(7), params={"classifier": params}, opt={}, extra={})
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(7, state, {"position": 0})
    checkpoints.close()
    description = {
        "config": {"steps": 7},
        "command": "as typed",
        "commit": "c0ffee",
        "versions": {},
        "devices": ["cpu"],
    }
    (tmp_path / "config.json").write_text(json.dumps({"seed": 3, **description}))
    rows = [
        {"step": 5, "split": "eval", "accuracy": 0.5, "nll": 1.0},
        {"step": 7, "split": "eval", "accuracy": 0.9, "nll": 0.1},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    digit_classifier.export(tmp_path, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        about = json.loads(str(arrays["metadata"]))
        np.testing.assert_array_equal(arrays["conv_1_2/kernel"], params["conv_1_2"]["kernel"])
        assert len(arrays.files) == 1 + len(jax.tree.leaves(params))
    assert (about["seed"], about["step"], about["test_accuracy"], about["command"]) == (3, 7, 0.9, "as typed")
