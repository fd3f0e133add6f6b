"""Configs and states of runs that earlier versions wrote."""

import json
import typing

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from orbax.checkpoint.experimental import v1 as ocp

from cvjax import checkpoint, config, runs, sharding
from cvjax.core import State, start
from cvjax.errors import UserError
from cvjax.rundir import read_config
from cvjax.upgrade import upgrade_config, upgrade_state

PARAMS, STATS = {"w": np.float32([1, 2])}, {"mean": np.float32([3])}

LAYOUTS = {  # params, extra -> stats, average
    "a GAN": (
        {"generator": PARAMS, "discriminator": PARAMS},
        {
            "batch_stats": {"generator": STATS, "discriminator": {}},
            "ema": {"generator": {"params": PARAMS, "batch_stats": STATS}},
        },
        {"generator": STATS},
        {"generator": {"params": PARAMS, "batch_stats": STATS}},
    ),
    "a pixel model": ({"pixelcnn": PARAMS}, {"ema": {"pixelcnn": PARAMS}}, {}, {"pixelcnn": {"params": PARAMS}}),
    "a detector without an average": (
        {"detector": PARAMS},
        {"batch_stats": {"detector": STATS}},
        {"detector": STATS},
        {},
    ),
    "RetinaNet": (
        {"resnet": PARAMS, "retinanet": PARAMS},
        {"batch_stats": STATS, "ema": {"params": {"resnet": PARAMS, "retinanet": PARAMS}, "batch_stats": STATS}},
        {"resnet": STATS},
        {"resnet": {"params": PARAMS, "batch_stats": STATS}, "retinanet": {"params": PARAMS}},
    ),
    "an autoencoder": ({"encoder": PARAMS}, {"codes": PARAMS}, {}, {}),
}


@pytest.mark.parametrize("name", LAYOUTS)
def test_averages_and_statistics_move_out_of_extra(name):
    params, extra, stats, average = LAYOUTS[name]
    new = upgrade_state({"step": 3, "params": params, "opt": {}, "extra": extra})
    assert jax.tree.structure((new["stats"], new["average"])) == jax.tree.structure((stats, average))
    assert set(new["extra"]) == ({"codes"} if "codes" in extra else set()) and new["frozen"] == {}
    assert upgrade_state(new) == new


def test_a_checkpoint_of_an_earlier_version_is_read_as_one_of_today(tmp_path):
    params, extra, *_ = LAYOUTS["a GAN"]
    moments = {"generator": (jnp.float32(5), {"mu": jnp.ones(2)})}
    old = {"step": jnp.int32(3), "params": params, "opt": moments, "extra": extra}
    with ocp.training.Checkpointer(tmp_path) as checkpointer:  # as a State of then was written, field by field
        checkpointer.save_checkpointables(3, {"state": jax.tree.map(jnp.asarray, old), "data": {"position": 4}})
    variables = {"params": PARAMS, "batch_stats": STATS}
    networks = {"generator": variables, "discriminator": {"params": PARAMS}}
    today = start(
        jax.tree.map(jnp.zeros_like, networks), jax.tree.map(jnp.zeros_like, moments), averaged=("generator",)
    )
    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    read = checkpoint.read_state(tmp_path, checkpoint.abstract(today, sharding.state_sharding(mesh, today)))
    assert isinstance(read, State) and int(read.step) == 3 and float(read.opt["generator"][0]) == 5
    np.testing.assert_array_equal(read.average["generator"]["batch_stats"]["mean"], [3])
    np.testing.assert_array_equal(read.stats["generator"]["mean"], [3])


def test_old_names_in_a_config_become_those_of_today(tmp_path):
    old = {
        "system": "generative.vae",
        "recipe": {"shape": [8, 8, 1], "measure": "digits", "latent": 8},
        "init_from": "runs/other/encoder",
    }
    new = upgrade_config(old)
    assert new == {
        "system": "generative.autoencoders.vae",
        "recipe": {"shape": [8, 8, 1], "latent": 8},
        "judge": "digits",
        "borrow": {"encoder": "runs/other/encoder@latest"},
    }
    assert new["system"] in config.systems() and upgrade_config(new) == new
    detector = {"system": "detection.yolov2", "recipe": {"dtype": "bfloat16"}}
    assert upgrade_config(detector) == {"system": "detection.yolov2", "recipe": {}, "precision": "bfloat16"}
    faster = {"backbone": "vgg", "rpn_channels": 8, "regions": 16, "hidden": 4, "proposing": {"before": 9}}
    assert upgrade_config({"system": "detection.faster_rcnn", "recipe": faster})["recipe"] == {
        "features": {"backbone": "vgg"},
        "classifying": {"count": 16, "hidden": 4},
        "proposing": {"before": 9, "channels": 8},
    }
    (tmp_path / "config.json").write_text(json.dumps({"config": old, "seed": 1}))
    assert read_config(tmp_path) == {"config": new, "seed": 1}


def test_a_key_at_its_default_equals_an_absent_one():
    full = config.as_dict(config.experiment("generative.autoencoders.vae", recipe=dict(shape=(8, 8, 1))))
    old = json.loads(json.dumps(full))
    del old["recipe"]["beta"], old["judge"], old["data"]["workers"]
    assert config.difference(old, full) == []
    assert config.difference(old, full | {"judge": "digits"}) == ["judge: '' in the run, 'digits' asked for"]
    other = config.difference(old | {"system": "generative.gans.gan"}, full)
    assert "system: 'generative.gans.gan' in the run, 'generative.autoencoders.vae' asked for" in other


def test_a_key_of_a_second_source_at_its_default_equals_an_absent_one():
    def joint(**also):
        recipe, data = dict(shape=(8, 8, 1)), dict(name="digits", also=dict(name="mnist", **also))
        return config.experiment("generative.autoencoders.vae", recipe=recipe, data=data, expect={"loss": ("<=", 1)})

    full = joint()
    old = json.loads(json.dumps(config.as_dict(full)))
    del old["data"]["also"]["held_out"]
    assert config.difference(old, config.as_dict(full)) == [] == config.changed_settings(old)
    for changed, line, setting in (
        (dict(held_out=0.5), ["data.also.held_out: 0.1 in the run, 0.5 asked for"], ["data"]),
        (dict(data_dir="elsewhere"), ["data.also.data_dir: None in the run, 'elsewhere' asked for"], []),
    ):
        other = config.as_dict(joint(**changed))
        assert config.difference(old, other) == line
        assert config.changed_settings(other | {"expect_for": old["expect_for"]}) == setting


def test_keys_of_a_dict_that_replaces_the_default_are_not_the_defaults():
    def gan(**optimiser):
        recipe = dict(shape=(8, 8, 1), generator_optimiser=dict(name="adam", learning_rate=2e-4, **optimiser))
        return config.as_dict(config.experiment("generative.gans.gan", recipe=recipe))

    found = "recipe.generator_optimiser.b1: 'absent' in the run, 0.5 asked for"
    assert config.difference(gan(), gan(b1=0.5)) == [found]
    assert config.difference(gan(b1=0.5), gan()) == [
        "recipe.generator_optimiser.b1: 0.5 in the run, 'absent' asked for"
    ]
    group = gan()
    del group["recipe"]["training"]["saturating"]
    assert config.difference(group, gan()) == []


ARGUMENTS = {  # of the recipes before networks had names
    "detection.retinanet": (
        "shape classes depth width stem strides fpn levels sizes scales ratios channels subnet_depth "
        "subnet_deviation prior gamma alpha beta force_match ema flip_test score_threshold candidates "
        "iou_threshold max_detections dtype optimiser"
    ),
    "detection.sliding_window": (
        "shape classes sizes window width hidden dropout near shift scale far hardest positive_iou "
        "negative_iou convolutional candidates ema flip_test score_threshold iou_threshold across_classes "
        "max_detections optimiser"
    ),
    "detection.yolo": (
        "shape classes layers width predictors bottleneck hidden dropout batch_norm shared coordinate_weight "
        "no_object_weight ema flip_test score_threshold iou_threshold max_detections dtype optimiser"
    ),
    "detection.yolo9000": (
        "classes tree unboxed shape anchors width stages head passthrough sizes prior_images rescore gate "
        "absent_weight tree_threshold ema flip_test score_threshold iou_threshold max_detections dtype "
        "optimiser"
    ),
    "detection.yolov2": (
        "shape classes anchors width stages head passthrough sizes prior_images rescore object_weight "
        "no_object_weight class_weight coordinate_weight ignore_iou ema flip_test score_threshold "
        "iou_threshold max_detections dtype optimiser"
    ),
    "generative.autoencoder": (
        "shape latent hidden activation code_activation convolutional tied loss corruption corruption_level "
        "contractive sparsity sparsity_weight sparsity_target measure optimiser"
    ),
    "generative.gan": (
        "shape networks loss classes latent prior width kernel base hidden dropout training measure "
        "samples_per_example generator_optimiser discriminator_optimiser"
    ),
    "generative.gated_pixelcnn": (
        "shape levels classes layers width first_kernel kernel head dropout ema measure samples_per_example optimiser"
    ),
    "generative.pixelcnn": (
        "shape levels classes layers width first_kernel kernel head dropout ema measure samples_per_example optimiser"
    ),
    "generative.pixelrnn": (
        "shape levels classes layers width first_kernel kernel head dropout ema measure samples_per_example optimiser"
    ),
    "generative.sagan": (
        "shape classes latent prior width base attention training measure samples_per_example "
        "generator_optimiser discriminator_optimiser"
    ),
    "generative.vae": (
        "shape latent hidden convolutional dropout likelihood levels binarise beta importance_samples measure optimiser"
    ),
    "generative.wgan": (
        "shape constraint penalty clip classes latent prior width kernel base training measure "
        "samples_per_example generator_optimiser discriminator_optimiser"
    ),
    "recognition.classifier": ("shape classes width features dropout label_smoothing shift angle zoom optimiser"),
}


@pytest.mark.parametrize("system", ARGUMENTS)
def test_every_old_argument_is_one_of_today_or_gone(system):
    new = upgrade_config({"system": system, "recipe": dict.fromkeys(ARGUMENTS[system].split(), 0)})
    known = config.recipe_parameters(new["system"])
    for name, value in new["recipe"].items():
        fields = typing.get_type_hints(known[name].annotation) if isinstance(value, dict) else {}
        assert not isinstance(value, dict) or value.keys() <= fields.keys()
    gone = {"measure", "samples_per_example", "dtype"} & set(ARGUMENTS[system].split())
    kept = [value for value in new["recipe"].values() if not isinstance(value, dict)]
    moved = [key for value in new["recipe"].values() if isinstance(value, dict) for key in value]
    assert len(kept) + len(moved) + len(gone) == len(ARGUMENTS[system].split())


@pytest.mark.parametrize(
    ("key", "value", "commit", "named"),
    [
        ("recipe.gone", 3, "0123456789abcdef", True),
        ("recipe.gone", 3, "", False),
        ("recipe.latent", 3, "0123456789abcdef", False),  # this version has the key
    ],
)
def test_the_commit_that_can_resume_a_run_of_another_version_is_named(tmp_path, key, value, commit, named):
    experiment = config.load("configs/vae_digits.py:smoke")
    written = json.loads(json.dumps(config.as_dict(experiment)))
    written["recipe"][key.removeprefix("recipe.")] = value
    (tmp_path / "config.json").write_text(json.dumps({"config": written, "commit": commit}))
    (tmp_path / "checkpoints" / "1").mkdir(parents=True)
    with pytest.raises(UserError, match=rf"{key}: 3 in the run, (8|'absent') asked for") as caught:
        runs.open_workdir(experiment, tmp_path)
    assert ("Commit 0123456789ab, which began the run, can go on with it." in str(caught.value)) == named
