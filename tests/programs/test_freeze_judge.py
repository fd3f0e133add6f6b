"""A trained digit classifier becomes the frozen judge, with where it comes from."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.checkpoint import Checkpoints
from cvjax.core import State
from cvjax.errors import UserError
from cvjax.programs.freeze_judge import export
from cvjax.weights import digit_classifier


def test_export_refuses_what_is_no_finished_run(tmp_path):
    with pytest.raises(UserError, match=r"config\.json"):
        export(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"config": {}}))
    with pytest.raises(UserError, match="checkpoints"):
        export(tmp_path)


def test_export_writes_the_last_weights_of_a_run_and_where_they_come_from(tmp_path):
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, digit_classifier.load())
    state = State(step=jnp.int32(7), params={"classifier": params}, opt={})
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
    export(tmp_path, tmp_path / "out.npz")
    with np.load(tmp_path / "out.npz") as arrays:
        about = json.loads(str(arrays["metadata"]))
        np.testing.assert_array_equal(arrays["conv_1_2/kernel"], params["conv_1_2"]["kernel"])
        assert len(arrays.files) == 1 + len(jax.tree.leaves(params))
    assert (about["seed"], about["step"], about["test_accuracy"], about["command"]) == (3, 7, 0.9, "as typed")
