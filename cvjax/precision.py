"""Mixed precision: networks compute in bfloat16; parameters, statistics, losses and averages stay float32."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import DTypeLike, PyTree

from cvjax.core import Recipe

_traced_in = jax.make_user_context("")  # tells jit's caches apart: a trace in one precision is not one in the other


def in_precision(recipe: Recipe, dtype: DTypeLike) -> Recipe:
    """Returns a recipe whose networks compute in `dtype`; with float32, the recipe itself.

    Every function of the recipe but `score` then runs within `computing_in`.
    """
    if jnp.dtype(dtype) == jnp.float32:
        return recipe

    def wrap(function: Callable) -> Callable:
        @functools.wraps(function)
        def wrapped(*args, **kwargs):
            with computing_in(dtype):
                return function(*args, **kwargs)

        return wrapped

    functions = {name: getattr(recipe, name) for name in ("train_step", "eval_step", "visualise", "predict", "sample")}
    return dataclasses.replace(recipe, **{name: wrap(call) for name, call in functions.items() if call is not None})


@contextlib.contextmanager
def computing_in(dtype: DTypeLike) -> Iterator[None]:
    """Linen layers called within compute in `dtype`, except those with a `dtype` of their own.

    A layer is a module with an attribute `dtype`, such as `nn.Dense`; it casts its inputs and parameters. Normalisation
    takes its means in float32 whatever its `dtype`. The outputs of a whole network are cast back to float32, so that
    losses and metrics are computed in it.
    """
    depth = 0

    def intercept(call: Callable, args: tuple, kwargs: Mapping, context: nn.module.InterceptorContext) -> Any:
        nonlocal depth
        module, depth = context.module, depth + 1
        follows = getattr(module, "dtype", dtype) is None
        if follows:  # modules are frozen, but this one is of a single trace
            object.__setattr__(module, "dtype", dtype)
        try:
            outputs = call(*args, **kwargs)
        finally:
            depth -= 1
            if follows:
                object.__setattr__(module, "dtype", None)
        return outputs if depth else _in_float32(outputs, dtype)

    with _traced_in(str(jnp.dtype(dtype))), nn.intercept_methods(intercept):
        yield


def _in_float32(outputs: PyTree, dtype: DTypeLike) -> PyTree:
    """Casts arrays of `dtype` to float32."""
    return jax.tree.map(lambda x: x.astype(jnp.float32) if getattr(x, "dtype", None) == dtype else x, outputs)
