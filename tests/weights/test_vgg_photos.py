"""The VGG that comes with the package tells crops of photographs apart, and says where it comes from."""

import re
import subprocess
import sys
from pathlib import Path

import jax.numpy as jnp
import numpy as np
from processes import environment

from cvjax import data
from cvjax.borrow import describe_network, make_networks
from cvjax.data.builders import photo_crops
from cvjax.weights import packages, vgg_photos

NAME = "package:cvjax/vgg_photos"


def test_it_classifies_held_out_crops():
    held = packages.load(NAME, vgg_photos.NET)
    crops = data.arrays("photo_crops/smoke", "test")
    logits, _ = vgg_photos.NET.apply(held, jnp.asarray(crops["image"]))
    assert np.mean(np.argmax(logits, axis=-1) == crops["label"]) >= 0.8  # of 30 crops


def test_it_is_a_network_that_recipes_take():
    (net,) = make_networks({"net": describe_network("net", NAME)}).values()
    assert net.shape == (64, 64, 3) and net.classes == vgg_photos.CLASSES and len(net.classes) == 15
    assert net.module.classes == 15


def test_its_shape_and_classes_are_those_of_the_crops():
    assert vgg_photos.SHAPE == (photo_crops.SIDE, photo_crops.SIDE, 3)
    assert tuple(photo_crops.PICTURES) == vgg_photos.CLASSES


def test_the_list_of_packages_needs_no_datasets():
    code = "import sys, cvjax.weights.packages; print('tensorflow_datasets' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=environment())
    assert found.stdout == "False\n"


def test_the_snippet_of_the_readme_looks_into_it():
    page = (Path(__file__).parents[2] / "README.md").read_text()
    (snippet,) = re.findall(r"^## Look inside$.*?^```python\n(.*?)^```$", page, re.MULTILINE | re.DOTALL)
    made = {}
    exec(snippet, made)
    assert made["attributions"].shape == (2, 64, 64, 3) and made["seen"].shape == (2, 4, 4)
    np.testing.assert_array_equal(made["fn"](made["images"]), made["logits_fn"](made["images"]))


def test_the_file_is_small_and_says_where_it_comes_from():
    assert vgg_photos.FILE.stat().st_size < 5_000_000
    about = vgg_photos.metadata()
    assert about["top1"] >= 0.95 and about["config"]["data"]["name"] == "photo_crops"
    assert {"command", "commit", "seed", "step", "versions", "devices"} <= set(about)
