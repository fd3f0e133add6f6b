"""The contract: a recipe of a system's methods, and how classes are counted."""

import dataclasses

import jax.numpy as jnp
import numpy as np

from cvjax.core import Recipe, count_classes, moving_average


@dataclasses.dataclass(frozen=True)
class Doubler:
    """A system that can neither be applied nor draws anything."""

    factor: int = 2

    def init(self):
        return self.factor

    def train_step(self):
        return self.factor + 1

    def eval_step(self):
        return self.factor + 2

    def score(self):
        return self.factor + 3

    def visualise(self):
        return self.factor + 4


def test_a_recipe_takes_methods_by_their_names_and_none_for_those_that_there_are_not():
    recipe = Recipe.of(Doubler(10), controls=dict)
    called = [recipe.init(), recipe.train_step(), recipe.eval_step(), recipe.score(), recipe.visualise()]
    assert called == [10, 11, 12, 13, 14]
    assert recipe.predict is None and recipe.sample is None and recipe.controls is dict


def test_classes_are_counted_by_number_or_by_names():
    assert [count_classes(given) for given in (None, 3, ("cat", "dog"))] == [None, 3, 2]


def test_a_moving_average_keeps_little_at_first_and_its_share_in_the_end():
    latest, average = {"kernel": jnp.float32(1.0)}, {"kernel": jnp.float32(0.0)}
    found = [float(moving_average(average, latest, jnp.int32(step), 0.9)["kernel"]) for step in (0, 10, 1000)]
    np.testing.assert_allclose(found, [0.9, 9 / 20, 0.1], rtol=1e-5)
