"""A trained VGG of photographs becomes the file that comes with the package."""

import hashlib
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.checkpoint import Checkpoints
from cvjax.core import State
from cvjax.errors import UserError
from cvjax.programs.freeze_vgg import export, main
from cvjax.weights import files, vgg_photos

SYSTEM, DATA = "recognition.vgg_classifier", "photo_crops"


def write_run(folder, network, system=SYSTEM, data=DATA, split="eval"):
    state = State(jnp.int32(7), {"classifier": network["params"]}, {}, average={"classifier": network})
    checkpoints = Checkpoints(folder / "checkpoints")
    checkpoints.save(7, state, {"position": 0})
    checkpoints.close()
    description = dict(
        config={"steps": 7, "system": system, "data": {"name": data}},
        command="as typed --workdir=runs/x",
        commit="c0ffee",
        versions={},
        devices=["cpu"],
        seed=3,
    )
    (folder / "config.json").write_text(json.dumps(description))
    row = {"step": 7, "split": split, "top1": 0.9, "nll": 0.1}
    (folder / "metrics.jsonl").write_text(json.dumps(row) + "\n")


def test_the_average_is_written_in_half_precision_with_where_it_comes_from(tmp_path, capsys):
    network = jax.tree.map(lambda leaf: jnp.asarray(leaf) + 1, vgg_photos.convert(files.read_tensors(vgg_photos.FILE)))
    write_run(tmp_path, network)
    main([f"--run={tmp_path}", f"--output={tmp_path / 'out.safetensors'}"])
    content = (tmp_path / "out.safetensors").read_bytes()
    assert f"SHA-256: {hashlib.sha256(content).hexdigest()}\n" in capsys.readouterr().out
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


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (dict(system="recognition.image_classifier"), "is of recognition.image_classifier on 'photo_crops', not of"),
        (dict(data="photo_crops/smoke"), "is of recognition.vgg_classifier on 'photo_crops/smoke', not of"),
        (dict(split="train"), "was never evaluated"),
    ],
)
def test_another_run_is_refused_and_so_is_one_without_figures(tmp_path, made, words):
    shapes = jax.eval_shape(vgg_photos.NET.init, jax.random.key(0), jnp.zeros((1, *vgg_photos.SHAPE)))
    write_run(tmp_path, jax.tree.map(lambda leaf: np.zeros(leaf.shape, np.float32), shapes), **made)
    with pytest.raises(UserError, match=words):
        export(tmp_path, tmp_path / "out.safetensors")
    assert not (tmp_path / "out.safetensors").exists()
