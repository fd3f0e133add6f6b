"""The contract: states of named networks, recipes of a system's methods, classes counted."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.core import Recipe, State, advance, count_classes, moving_average, start, variables


@dataclasses.dataclass(frozen=True)
class Doubler:
    """A system that can neither be applied nor draws anything."""

    factor: int = 2
    networks: dict = dataclasses.field(default_factory=dict)

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
    assert recipe.networks == {} and recipe.sample_inputs == ()


def test_classes_are_counted_by_number_or_by_names():
    assert [count_classes(given) for given in (None, 3, ("cat", "dog"))] == [None, 3, 2]


def a_state() -> State:
    """Networks with statistics, with an average, with neither, and a frozen one."""
    normalised = {"params": {"w": jnp.ones(2)}, "batch_stats": {"mean": jnp.zeros(2)}}
    plain, frozen = {"params": {"w": jnp.full(3, 2.0)}}, {"params": {"w": jnp.full(4, 9.0)}}
    networks = {"backbone": normalised, "head": plain, "critic": plain | {"batch_stats": {}}}
    return start(networks, {"all": jnp.zeros(())}, averaged=("backbone",), frozen={"judge": frozen}, extra={"pool": 1})


def test_a_first_state_keeps_each_network_where_it_belongs():
    state = a_state()
    assert int(state.step) == 0 and state.extra == {"pool": 1}
    assert set(state.params) == {"backbone", "head", "critic"} and set(state.stats) == {"backbone"}
    assert set(state.average) == {"backbone"} and set(state.frozen) == {"judge"}
    # The average is a copy, since the state is donated: no buffer may be in it twice.
    leaves = jax.tree.leaves(state)
    assert len({leaf.unsafe_buffer_pointer() for leaf in leaves if isinstance(leaf, jax.Array) and leaf.size > 1}) == 6


def test_variables_are_the_average_the_latest_or_the_frozen_ones():
    state = a_state()
    state = advance(state, {"backbone": {"w": jnp.zeros(2)}}, {}, {"backbone": {"mean": jnp.ones(2)}}, keep=0.9)
    assert set(variables(state, "backbone")) == {"params", "batch_stats"} and set(variables(state, "head")) == {
        "params"
    }
    np.testing.assert_allclose(
        variables(state, "backbone")["params"]["w"], 0.1, rtol=1e-6
    )  # (1 + 0) / (10 + 0) is kept
    np.testing.assert_allclose(variables(state, "backbone")["batch_stats"]["mean"], 0.9, rtol=1e-6)  # statistics alike
    np.testing.assert_array_equal(variables(state, "backbone", averaged=False)["params"]["w"], 0)
    np.testing.assert_array_equal(variables(state, "judge")["params"]["w"], 9)


def test_advancing_changes_what_it_is_given_and_counts_the_step():
    before = a_state()
    after = advance(before, {"head": {"w": jnp.zeros(3)}}, {"all": jnp.ones(())}, {"head": {}}, {"pool": 2})
    assert int(after.step) == 1 and after.extra == {"pool": 2} and float(after.opt["all"]) == 1
    np.testing.assert_array_equal(after.params["head"]["w"], 0)
    np.testing.assert_array_equal(after.params["backbone"]["w"], before.params["backbone"]["w"])
    assert jax.tree.structure(after) == jax.tree.structure(before)
    np.testing.assert_array_equal(after.frozen["judge"]["params"]["w"], 9)


def test_a_moving_average_keeps_little_at_first_and_its_share_in_the_end():
    latest, average = {"kernel": jnp.float32(1.0)}, {"kernel": jnp.float32(0.0)}
    found = [float(moving_average(average, latest, jnp.int32(step), 0.9)["kernel"]) for step in (0, 10, 1000)]
    np.testing.assert_allclose(found, [0.9, 9 / 20, 0.1], rtol=1e-5)
