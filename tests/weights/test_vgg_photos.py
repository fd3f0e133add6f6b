"""The VGG that comes with the package tells crops of photographs apart, and says where it comes from."""

import jax.numpy as jnp
import numpy as np

from cvjax import data
from cvjax.borrow import describe_network, make_networks
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


def test_the_file_is_small_and_says_where_it_comes_from():
    assert vgg_photos.FILE.stat().st_size < 5_000_000
    about = vgg_photos.metadata()
    assert about["top1"] >= 0.95 and about["config"]["data"]["name"] == "photo_crops"
    assert {"command", "commit", "seed", "step", "versions", "devices"} <= set(about)
