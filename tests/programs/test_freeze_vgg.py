"""A trained VGG of photographs becomes the file that comes with the package."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.checkpoint import Checkpoints
from cvjax.core import State
from cvjax.errors import UserError
from cvjax.programs.freeze_vgg import export
from cvjax.weights import files, vgg_photos


def write_run(folder, network):
    state = State(jnp.int32(7), {"classifier": network["params"]}, {}, average={"classifier": network})
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(7, state, {"position": 0})
    checkpoints.close()
    description = dict(
        config={"steps": 7}, command="as typed --workdir=runs/x", commit="c0ffee", versions={}, devices=["cpu"], seed=3
    )
    (folder / "config.json").write_text(json.dumps(description))
    row = {"step": 7, "split": "eval", "top1": 0.9, "nll": 0.1}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_the_average_is_written_in_half_precision_with_where_it_comes_from(tmp_path):
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, vgg_photos.convert(files.read_tensors(vgg_photos.FILE)))
    write_run(tmp_path, network)
    about = export(tmp_path, tmp_path / "out.safetensors")
    assert (about["seed"], about["step"], about["top1"], about["command"]) == (3, 7, 0.9, "as typed")
    tensors = files.read_tensors(tmp_path / "out.safetensors")
    assert {tensor.dtype for tensor in tensors.values()} == {np.dtype("float16")}
    found = vgg_photos.convert(tensors)
    jax.tree.map(lambda ours, wanted: np.testing.assert_allclose(ours, wanted, rtol=1e-3), found, network)


def test_another_network_is_refused(tmp_path):
    write_run(tmp_path, {"params": {"kernel": jnp.ones(3)}})
    with pytest.raises(UserError, match="no network `classifier` with the shapes"):
        export(tmp_path, tmp_path / "out.safetensors")
