"""First states with parameters drawn in NumPy: compiling a recipe's `init` takes longer than most tests."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.core import start, variables


def lecun(names, shape):
    """Standard deviation of a kernel whose outputs have the variance of its inputs."""
    return math.sqrt(1 / math.prod(shape[:-1]))


def draw_state(recipe, batch, seed=0, deviation=lecun):
    """A state of the shapes that `init` makes: normal kernels, scales and variances of 1, zeros elsewhere."""
    generator = np.random.default_rng(seed)

    def draw(path, leaf):
        names = [entry.key for entry in path]
        if names[-1] == "kernel":
            return jnp.asarray(deviation(names, leaf.shape) * generator.normal(size=leaf.shape), jnp.float32)
        return jnp.full(leaf.shape, float(names[-1] in ("scale", "var")))

    shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch)
    networks = {name: variables(shapes, name, averaged=False) for name in recipe.networks}
    networks = jax.tree_util.tree_map_with_path(draw, networks)
    opt = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, leaf.dtype), shapes.opt)
    frozen = {name: networks.pop(name) for name in shapes.frozen}
    return start(networks, opt, averaged=tuple(shapes.average), frozen=frozen)
