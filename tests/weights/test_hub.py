"""Folders for the Hugging Face hub: written, read back bit for bit, and borrowed from."""

import json

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import yaml

from cvjax import borrow, runs
from cvjax.core import Recipe, start
from cvjax.errors import UserError
from cvjax.weights import hub

CARD = hub.Card("A net", "mit", "Tells digits apart.", ("jax", "digits"), {"data": "digits"}, [("fid", 0.51234, "a")])
CONFIG = {"config": {"system": "recognition.classifier", "recipe": {}}, "batch": {"image": [[4, 8, 8, 1], "float32"]}}


@pytest.fixture
def networks():
    random = np.random.default_rng(0)
    kernel = random.normal(size=(3, 2)).astype(np.float32).T  # in the order of another layout
    strided = random.normal(size=(6,)).astype(np.float32)[::2]
    net = {"params": {"conv": {"kernel": kernel, "bias": strided}}, "batch_stats": {"conv": {"mean": np.float32(2)}}}
    return {"net": net, "other": {"params": {"scale": np.arange(4, dtype=np.int32)}}}


def test_networks_are_read_back_bit_for_bit(tmp_path, networks):
    hub.save(tmp_path / "model", networks, CONFIG, CARD)
    found = hub.load(tmp_path / "model")
    assert jax.tree.structure(found) == jax.tree.structure(networks)
    for path, value in flax.traverse_util.flatten_dict(networks).items():
        ours = flax.traverse_util.flatten_dict(found)[path]
        assert ours.dtype == value.dtype and ours.shape == np.shape(value)
        np.testing.assert_array_equal(ours, value)


@pytest.mark.parametrize("name", ["README.md", "config.json", "model.safetensors"])
def test_only_a_model_of_ours_is_replaced(tmp_path, networks, name):
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=rf"{name} would be overwritten, and is of no model of cvjax"):
        hub.save(tmp_path, networks, CONFIG, CARD)
    assert [path.name for path in tmp_path.iterdir()] == [name] and (tmp_path / name).read_text() == "{}"
    (tmp_path / name).unlink()
    (tmp_path / "README.md").write_text("---\nlicense: mit\n---\n")  # of a new repository
    for _ in range(2):
        hub.save(tmp_path, networks, CONFIG, CARD)


def test_the_card_has_a_head_and_the_figures(tmp_path, networks):
    hub.save(tmp_path / "model", networks, CONFIG, CARD)
    written = json.loads((tmp_path / "model" / "config.json").read_text())
    assert written["library_name"] == "cvjax" and written["config"] == CONFIG["config"]
    start_, head, text = (tmp_path / "model" / "README.md").read_text().split("---\n", 2)
    assert start_ == "" and yaml.safe_load(head) == {
        "library_name": "cvjax",
        "license": "mit",
        "tags": ["jax", "digits"],
    }
    assert "# A net\n\nTells digits apart.\n" in text and "\n| data | digits |\n" in text
    assert "\n| fid | 0.5123 | a |\n" in text and "folder = Path('model')" in text and "{" not in text
    for licence in ("", "MIT", "apache 2"):
        with pytest.raises(UserError, match="is not the identifier of a licence"):
            hub.Card("A net", licence, "", (), {})


def test_a_network_is_borrowed_from_a_folder_of_the_hub(tmp_path, networks):
    hub.save(tmp_path / "model", networks, CONFIG, CARD)
    wanted = start({"mine": jax.tree.map(lambda leaf: jnp.zeros_like(leaf), networks["net"])}, {})
    recipe = Recipe({"mine": nn.Dense(1)}, *[print] * 5)
    read = lambda name: borrow.read({"system": "x", "borrow": {"mine": f"{tmp_path}/model/{name}"}}, recipe, wanted)  # noqa: E731
    kernels = (held["params"]["conv"]["kernel"] for held in (read("net")["mine"], networks["net"]))
    np.testing.assert_array_equal(*kernels)
    with pytest.raises(UserError, match=r"model has no network 'nett'. Did you mean 'net'"):
        read("nett")
    with pytest.raises(UserError, match=r"model is a folder for the hub: .* --config\.borrow\.NETWORK="):
        runs.load(tmp_path / "model")
