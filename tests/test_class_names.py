"""A config that says how many classes there are gets the names that the dataset has for them."""

import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from cvjax import config, data
from cvjax.core import State
from cvjax.errors import UserError
from cvjax.metrics import plots
from cvjax.ops import drawing
from cvjax.programs import apply

NAMES = ("cat", "dog")
STATE = State(jnp.int32(0), {}, {})


def classifier(classes):
    return config.experiment("recognition.image_classifier", recipe=dict(shape=(8, 8, 1), classes=classes))


def test_a_number_becomes_names_where_the_recipe_takes_them():
    named = config.name_classes(classifier(2), NAMES)
    assert named.recipe.classes == NAMES and named.is_locked
    assert config.build(named).score.__self__.names == NAMES
    assert config.name_classes(classifier(2), ("0", "1")).recipe.classes == 2  # no names
    assert config.name_classes(classifier(2), ()).recipe.classes == 2
    assert config.name_classes(classifier(("a", "b")), NAMES).recipe.classes == ("a", "b")  # the user's own
    without = config.load("configs/dcgan_digits.py:smoke")
    assert config.name_classes(without, NAMES) is without


def test_a_map_of_latents_has_the_names_of_the_dataset(monkeypatch):
    vae = config.load("configs/vae_digits.py")
    named = config.name_classes(vae, NAMES)
    assert named.recipe.label_names == NAMES and config.name_classes(vae, ("0", "1")) is vae
    assert config.changed_settings(named) == [] == config.difference(config.as_dict(vae), config.as_dict(named))
    system = config.build(named).visualise.__self__
    codes = jnp.float32([[0, 0], [1, 1]])
    monkeypatch.setattr(type(system), "decoded_pictures", lambda *_: ({}, codes))
    drawn, draw = [], plots.draw_map
    monkeypatch.setattr(plots, "draw_map", lambda *given: (drawn.append(given), draw(*given))[1])
    system.visualise(STATE, {"label": jnp.int32([0, 1]), "valid": jnp.ones(2, bool)}, jax.random.key(0))
    assert drawn[0][3] == NAMES


def applied(path, outputs, tmp_path):
    """Applies a config's recipe to an image, with the given outputs of one image in the place of its network's."""
    chosen = config.load(path)
    rows = {name: np.asarray(value)[None] for name, value in outputs.items()}
    recipe = dataclasses.replace(config.build(chosen), predict=lambda *_: rows)
    description = {"config": config.as_dict(chosen), "batch": {"image": [[1, *chosen.recipe.shape], "float32"]}}
    Image.new("RGB", tuple(chosen.recipe.shape[:2])).save(tmp_path / "a.png")
    predictor = apply.Predictor(description, recipe, STATE, batch=1)
    apply.apply_to_images(predictor, tmp_path / "a.png", tmp_path / "out")


def test_names_of_detections_reach_pictures_and_json(tmp_path, monkeypatch):
    written = []
    monkeypatch.setattr(drawing, "_write", lambda levels, text, *_: written.append(text))
    boxes, labels = np.float32([[4, 4, 20, 20], [30, 30, 50, 50]]), np.int32([3, 10])  # 10: a node, no class
    found = {"boxes": boxes, "labels": labels, "scores": np.float32([0.9, 0.8]), "detected": np.ones(2, bool)}
    applied("configs/yolo9000_scenes.py:smoke", found, tmp_path)
    coco = json.loads((tmp_path / "out" / "detections.json").read_text())
    names = {category["id"]: category["name"] for category in coco["categories"]}
    assert [names[annotation["category_id"]] for annotation in coco["annotations"]] == ["3", "even"]
    assert sorted(written) == ["3 90", "even 80"]


def test_a_number_in_an_earlier_run_equals_names_on_resuming():
    def difference(old, new):
        return config.difference(*(config.as_dict(classifier(classes)) for classes in (old, new)))

    assert difference(2, NAMES) == [] == difference(NAMES, 2)
    assert difference(NAMES, ("cat", "cow")) == ["recipe.classes: ['cat', 'dog'] in the run, ['cat', 'cow'] asked for"]
    assert difference(3, NAMES) == ["recipe.classes: 3 in the run, ['cat', 'dog'] asked for"]


def test_bars_for_a_number_of_classes_hold_for_their_names():
    retinanet = config.load("configs/retinanet_scenes.py")
    names = tuple(f"digit {number}" for number in range(10))
    assert config.changed_settings(config.name_classes(retinanet, names)) == []
    retinanet.recipe.width = 3
    assert config.changed_settings(config.name_classes(retinanet, names)) == ["recipe"]


def test_names_and_numbers_must_agree(tmp_path):
    with pytest.raises(UserError, match=r"classes=3, but digits has 10 classes"):
        wrong = classifier(3)
        wrong.data.name = "digits"
        config.check(wrong)


def test_styles_are_the_classes_of_the_second_source_in_its_order(tmp_path):
    for name in ("photos", "styles/klee", "styles/monet"):
        (tmp_path / name).mkdir(parents=True)
        for file in ("one.png", "two.png"):
            Image.new("RGB", (16, 16)).save(tmp_path / name / file)
    fit = (dict(op="resize", size=(16, 16)),)

    def check(styles, **also):
        size = dict(transforms=fit, eval_transforms=fit)
        own = dict(folder=str(tmp_path / "photos"), batch=1, also=(dict(folder=str(tmp_path / "styles")) | also) | size)
        borrow = dict(network="runs/x/classifier")
        config.check(
            config.experiment("translation.fast_style", recipe=dict(styles=styles), borrow=borrow, data=own | size)
        )

    check(("klee", "monet"))
    check(2)
    for wrong in (("monet", "klee"), ("klee",), 3):
        with pytest.raises(UserError, match=r"recipe\.styles=.*classes of data\.also are \('klee', 'monet'\), in this"):
            check(wrong)
    textures = dict(folder=None, name="textures")
    check(4, **textures)
    with pytest.raises(UserError, match=r"\('tissue', 'gravel', 'grass', 'flower'\)"):
        check(("flower", "grass", "gravel", "tissue"), **textures)


def test_no_picture_of_ones_own_styles_is_held_out(tmp_path):
    for name in ("photos/one", "photos/two", "styles/klee/one", "styles/monet/one"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (16, 16)).save(tmp_path / f"{name}.png")
    own = config.load("configs/fast_style_photos.py:own")
    own.data.folder, own.data.also.folder = (str(tmp_path / name) for name in ("photos", "styles"))
    own.data.batch, own.recipe.styles = 1, ("klee", "monet")
    config.check(own)
    also = data.load(config.as_dict(own.data), seed=0).info["also"]
    assert set(also["examples"].values()) == {2} and also["classes"] == ("klee", "monet")
