"""The contract that every system meets: a `Recipe` of pure functions over a `State`, and `descend`."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import jax
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from cvjax.errors import UserError

# What goes in and out of a recipe's functions.
Batch = Mapping[str, Shaped[Array | np.ndarray, "..."]]
Params = Mapping[str, Any]
Metrics = dict[str, Float[Array, ""]]
Pictures = dict[str, Float[Array | np.ndarray, "..."]]


@flax.struct.dataclass
class State:
    """Everything that training changes. A pytree: it is jitted, donated, sharded and saved as one.

    Attributes:
      step: number of training steps taken, an int32 scalar; `train_step` adds one.
      params: one entry per network, `{"generator": ..., "discriminator": ...}`.
      opt: one entry per optimiser.
      extra: all else that lives from step to step: averaged parameters, batch statistics, image pools.
    """

    step: Int[Array, ""]
    params: dict[str, Any]
    opt: dict[str, Any]
    extra: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one system is initialised, trained, evaluated and shown. All fields are functions.

    `fit` jits `init`, `train_step` and `eval_step`; they are pure. The others run on the host between steps and
    jit what they want to. Every key is already unique to its step; a recipe splits it and never stores it.

    Attributes:
      init: (key, batch) -> State. Uses the batch's shapes and dtypes only.
      train_step: (state, batch, key) -> (State, {name: scalar}).
      eval_step: (state, batch, key) -> {name: array}, one row an example of the batch.
      score: (iterator of (batch, outputs)) -> {name: float}. Rows are NumPy, padding already removed.
      visualise: (state, batch, key) -> {name: images}, NHWC in [0, 1].
      predict: (state, inputs) -> {name: array}, one row an input; `inputs["image"]` is NHWC in [0, 1].
      sample: (state, key, count) -> {name: images}, `count` rows, NHWC in [0, 1]; for systems that generate.
      controls: () -> {row: {name: float}}. What simple or broken competitors score by the same measures.
    """

    init: Callable
    train_step: Callable
    eval_step: Callable
    score: Callable
    visualise: Callable
    predict: Callable | None = None
    sample: Callable | None = None
    controls: Callable | None = None

    @classmethod
    def of(cls, system: Any, controls: Callable | None = None) -> "Recipe":
        """Takes the methods of a system that are called as the fields are.

        Args:
          system: a frozen dataclass.
          controls: the last field, for systems that have competitors.

        Returns:
          The recipe.
        """
        names = [field.name for field in dataclasses.fields(cls) if field.name != "controls"]
        return cls(**{name: getattr(system, name) for name in names if hasattr(system, name)}, controls=controls)


def descend(
    tx: optax.GradientTransformation,
    loss_fn: Callable[[PyTree], tuple[Array, Any]],
    params: PyTree,
    opt_state: PyTree,
) -> tuple[PyTree, PyTree, Array, Any]:
    """Takes one step of an optimiser down a loss. A GAN calls it twice in one train step.

    Args:
      tx: the optimiser.
      loss_fn: params -> (scalar loss, aux); aux is any pytree that the caller wants back.
      params: the parameters to change.
      opt_state: the state of `tx` for `params`.

    Returns:
      (new params, new opt_state, loss before the step, aux).
    """
    (loss, aux), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    line_search = dict(value=loss, grad=gradients, value_fn=lambda p: loss_fn(p)[0])  # for optimisers that take one
    updates, opt_state = optax.with_extra_args_support(tx).update(gradients, opt_state, params, **line_search)
    return optax.apply_updates(params, updates), opt_state, loss, aux


def check_images(batch: Mapping[str, Any], shape: Sequence[int]) -> None:
    """Refuses a batch whose images are not what a recipe was made for; called by `init`, before anything compiles.

    Args:
      batch: `batch["image"]` is [batch, height, width, channels].
      shape: height, width, channels that the recipe's networks were built for.

    Raises:
      UserError: they differ.
    """
    if batch["image"].shape[1:] != tuple(shape):
        raise UserError(
            f"the images are {batch['image'].shape[1:]}, but config.recipe.shape={tuple(shape)}: set it, or resize "
            "them by data.transforms and data.eval_transforms."
        )


def class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Names classes from a recipe's argument `classes`: names themselves, or how many, which makes them "0" to "n - 1".

    Args:
      classes: the argument.

    Returns:
      One name a class.
    """
    return tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)


def count_classes(classes: int | Sequence[str] | None) -> int | None:
    """Counts classes from a recipe's argument `classes`.

    Args:
      classes: how many, or their names, or None.

    Returns:
      How many; None where the argument is None.
    """
    return None if classes is None else len(class_names(classes))
