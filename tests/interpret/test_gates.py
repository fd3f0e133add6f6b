"""ReLUs with other gradients: by hand, inside every construct that a network may use, and torch's rules."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.interpret.gates import deconvnet, guided
from cvjax.nets.digit_classifier import DigitClassifier

X = jnp.array([-2.0, -1.0, 1.0, 2.0])
W = jnp.array([1.0, -1.0, 1.0, -1.0])  # the gradient that a weighted sum sends back
BACK = {guided: [0, 0, 1, 0], deconvnet: [1, 0, 1, 0]}
TRANSFORMS = pytest.mark.parametrize("transform", [guided, deconvnet])


def carry(x, _):
    return jax.nn.relu(x), None


def around_a_scan(x, zero):
    return jax.lax.scan(lambda c, _: (jnp.maximum(c, zero), None), x, None, length=1)[0]


RELUS = {
    "plain": jax.nn.relu,
    "flax": nn.relu,
    "maximum": lambda x: jnp.maximum(x, 0),
    "zero first": lambda x: jnp.maximum(0.0, x),
    "array of zeros": lambda x: jnp.maximum(x, jnp.zeros(4)),
    "jit": jax.jit(jax.nn.relu),
    "an argument that is zero": lambda x: jax.jit(jnp.maximum)(x, 0.0),
    "remat": jax.checkpoint(jax.nn.relu),
    "a policy of remat": jax.checkpoint(jax.nn.relu, policy=jax.checkpoint_policies.everything_saveable),
    "vmap": jax.vmap(jax.nn.relu),
    "scan": lambda x: jax.lax.scan(carry, x, None, length=1)[0],
    "rows of a scan": lambda x: jax.lax.scan(lambda c, row: (c, jax.nn.relu(row)), 0, x, reverse=True)[1],
    "fori_loop": lambda x: jax.lax.fori_loop(0, 1, lambda _, x: jax.nn.relu(x), x),
    "a zero under remat": lambda x: jax.checkpoint(jnp.maximum)(x, 0.0),
    "a zero for a scan": lambda x: jax.lax.scan(lambda c, zero: (jnp.maximum(c, zero), None), x, jnp.zeros((1, 4)))[0],
    "a zero around a scan": lambda x: around_a_scan(x, jnp.zeros(4)),
    "a zero carried": lambda x: jax.lax.scan(lambda c, row: (c, jnp.maximum(row, c)), 0.0, x)[1],
    "a zero for a cond": lambda x: jax.lax.cond(x[0] < 0, jnp.maximum, jnp.add, x, 0.0),
    "cond": lambda x: jax.lax.cond(x[0] < 0, jax.nn.relu, jnp.sin, x),
}


@TRANSFORMS
@pytest.mark.parametrize("name", RELUS)
def test_a_relu_is_replaced_wherever_it_stands(transform, name):
    relu = RELUS[name]
    score = lambda x: (W * transform(relu)(x)).sum()  # noqa: E731
    np.testing.assert_array_equal(transform(relu)(X), relu(X))
    np.testing.assert_array_equal(jax.grad(score)(X), BACK[transform])
    np.testing.assert_array_equal(jax.jit(jax.vmap(jax.grad(score)))(jnp.stack([X, X]))[1], BACK[transform])


@TRANSFORMS
def test_relu6_keeps_the_gradient_of_its_minimum(transform):
    x = jnp.array([-1.0, 1.0, 5.0, 7.0])
    back = jax.grad(lambda x: (jnp.array([1.0, 1.0, -1.0, 1.0]) * transform(jax.nn.relu6)(x)).sum())(x)
    np.testing.assert_array_equal(back, [0 if transform is guided else 1, 1, 0, 0])


def test_what_is_no_relu_stays_as_it_is():
    def others(x):
        x = jnp.clip(x, -1.5, 3) + jnp.clip(x, 0, 1) + jax.nn.softplus(x) + jax.nn.leaky_relu(x)
        return nn.GroupNorm(1, use_bias=False, use_scale=False).apply({}, x[None, None])[0, 0]

    fn = lambda x: others(x) + 0 * jax.nn.relu(x)  # noqa: E731
    for transform in (guided, deconvnet):
        ours, plain = (jax.grad(lambda x, f=f: (W * f(x)).sum())(X) for f in (transform(fn), others))
        np.testing.assert_allclose(ours, plain, atol=1e-6)


def test_functions_keep_their_arguments_results_and_outer_values():
    scale = jnp.float32(2)

    def fn(tree, *, shift):
        return {"sum": jax.nn.relu(scale * tree["a"]) + shift, "same": tree["b"]}

    outputs = guided(fn)({"a": X, "b": jnp.arange(3)}, shift=1.0)
    np.testing.assert_array_equal(outputs["sum"], jax.nn.relu(2 * X) + 1)
    np.testing.assert_array_equal(outputs["same"], jnp.arange(3))
    # Parameters that are traced from outside.
    back = jax.jit(jax.grad(lambda w: (guided(lambda x: W * jax.nn.relu(w * x))(X)).sum()))(jnp.ones(4))
    np.testing.assert_array_equal(back, [0, 0, 1, 0])


def test_a_function_without_a_relu_or_with_it_in_a_while_loop_is_refused():
    with pytest.raises(UserError, match="guided: the function has no ReLU"):
        guided(jnp.sin)(X)
    loop = lambda x: jax.lax.while_loop(lambda x: x[3] > 9, jax.nn.relu, x)  # noqa: E731
    with pytest.raises(UserError, match="deconvnet: there is a ReLU inside 'while'"):
        deconvnet(loop)(X)
    bounded = lambda x, low: jax.lax.while_loop(lambda x: x[3] > 9, lambda x: jnp.maximum(x, low), x)  # noqa: E731
    with pytest.raises(UserError, match="deconvnet: there is a ReLU inside 'while'"):
        deconvnet(lambda x: bounded(jax.nn.relu(x), jnp.zeros(4)))(X)


@TRANSFORMS
def test_a_network_under_remat_and_jit_is_the_network(transform):
    images = jax.random.uniform(jax.random.key(0), (2, 8, 8, 1))
    net = DigitClassifier(width=2, features=3)
    held = net.init(jax.random.key(1), images)

    def back(net):
        score = lambda x: transform(lambda x: net.apply(held, x)[0])(x)[:, 3].sum()  # noqa: E731
        return jax.jit(jax.grad(score))(images)

    found = back(net)
    np.testing.assert_allclose(back(nn.remat(DigitClassifier)(width=2, features=3)), found, atol=1e-6)
    assert np.abs(found - jax.grad(lambda x: net.apply(held, x)[0][:, 3].sum())(images)).max() > 1e-3
