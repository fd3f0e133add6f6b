"""A config that says how many classes there are gets the names that the dataset has for them."""

import pytest

from cvjax import config
from cvjax.errors import UserError

NAMES = ("cat", "dog")


def classifier(classes):
    return config.experiment("recognition.image_classifier", recipe=dict(shape=(8, 8, 1), classes=classes))


def test_a_number_becomes_names_where_the_recipe_takes_them():
    named = config.name_classes(classifier(2), NAMES)
    assert named.recipe.classes == NAMES and named.is_locked
    assert config.build(named).score.__self__.names == NAMES
    assert config.name_classes(classifier(2), ("0", "1")).recipe.classes == 2  # no names
    assert config.name_classes(classifier(2), ()).recipe.classes == 2
    assert config.name_classes(classifier(("a", "b")), NAMES).recipe.classes == ("a", "b")  # the user's own
    without = config.load("configs/vae_digits.py:smoke")
    assert config.name_classes(without, NAMES) is without


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
