"""What a compiled recipe gets at each step: a key of its own, that depends on nothing but the seed and the step."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from cvjax import compiled, sharding
from cvjax.core import Recipe, advance, start
from cvjax.ops import convolution


def init(key, batch):
    return start({"net": {"params": {"drawn_first": jax.random.uniform(key)}}}, opt={"net": ()})


def train_step(state, batch, key):
    return advance(state, state.params, state.opt), {"drawn": jax.random.uniform(key)}


def eval_step(state, batch, key):
    return {"drawn": jax.random.uniform(key)}


def compile_with(seed):
    recipe = Recipe({}, init, train_step, eval_step, score=lambda rows: {}, visualise=lambda state, batch, key: {})
    return compiled.compile_recipe(recipe, sharding.make_mesh({"data": 1}, jax.devices()[:1]), BATCH, seed)


BATCH = {"image": ((2, 4, 4, 1), "float32")}
IMAGES = {"image": jnp.zeros((2, 4, 4, 1))}


def drawn_numbers(functions, steps):
    """The numbers drawn by the first state, by training steps and by evaluating as many batches."""
    state = functions.init()
    drawn = [float(state.params["net"]["drawn_first"])]
    for _ in range(steps):
        state, metrics = functions.train_step(state, IMAGES)
        drawn.append(metrics["drawn"])
    return np.asarray(drawn + [functions.eval_step(state, IMAGES, index)["drawn"] for index in range(steps)])


def test_every_step_and_every_batch_of_an_evaluation_draws_its_own_numbers():
    drawn = drawn_numbers(compile_with(seed=3), steps=4)
    assert len(set(drawn.tolist())) == 9  # uniform float32 have 2^23 values


def test_the_seed_and_the_step_decide_what_is_drawn():
    functions = compile_with(seed=3)
    np.testing.assert_array_equal(drawn_numbers(functions, 3), drawn_numbers(compile_with(seed=3), 3))
    assert not np.isin(drawn_numbers(functions, 3), drawn_numbers(compile_with(seed=4), 3)).any()
    fifth = functions.init().replace(step=jnp.asarray(5, jnp.int32))  # as a checkpoint gives it back
    state = functions.init()
    for _ in range(6):
        state, metrics = functions.train_step(state, IMAGES)
    _, resumed = functions.train_step(fifth, IMAGES)
    np.testing.assert_array_equal(resumed["drawn"], metrics["drawn"])


def traced_convolution(features):
    x, w = jnp.zeros((2, 8, 8, features)), jnp.zeros((3, 3, features, features))
    return jax.jit(partial(convolution.conv, padding=1)).trace(x, w)


def test_narrow_convolutions_are_not_left_to_one_thread(monkeypatch):
    monkeypatch.setattr(compiled, "cores", lambda: 2)
    assert "ynn" not in compiled.compile_traced(traced_convolution(64)).as_text()
    assert compiled._choose_options(traced_convolution(128).jaxpr) == {}
    monkeypatch.setattr(compiled, "cores", lambda: 1)
    assert compiled._choose_options(traced_convolution(64).jaxpr) == {}


def test_programs_compile_where_xla_lacks_the_option(monkeypatch):
    monkeypatch.setattr(compiled, "WITHOUT_YNNPACK", {"xla_cpu_no_such_option": "1"})
    assert compiled._known_options.__wrapped__() == {}
