"""The contract that every system meets: a `Recipe` of pure functions over a `State` of named networks."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Float, Int, PyTree, Shaped

from cvjax.errors import UserError

# What goes in and out of a recipe's functions.
Batch = Mapping[str, Shaped[Array | np.ndarray, "..."]]
Params = Mapping[str, Any]
Variables = Mapping[str, Any]  # of a Linen module: {"params": ..., "batch_stats": ...}
Metrics = dict[str, Float[Array, ""]]
Pictures = dict[str, Float[Array | np.ndarray, "..."]]


@flax.struct.dataclass
class State:
    """Everything that a run keeps. A pytree: it is jitted, donated, sharded and saved as one.

    `start` makes the first one, `advance` the next, and `variables` reads a network out of it.

    Attributes:
      step: number of training steps taken, an int32 scalar.
      params: parameters of the networks that are trained, `{"generator": ..., "discriminator": ...}`.
      opt: states of the optimisers, one entry each.
      stats: batch statistics (Linen's collection `batch_stats`) of the trained networks that have any.
      average: moving averages of networks: Linen variables, parameters and statistics.
      frozen: networks that are used and never trained: Linen variables.
      extra: what is none of these: image pools, moments of codes, archives.
    """

    step: Int[Array, ""]
    params: dict[str, Any]
    opt: dict[str, Any]
    stats: dict[str, Any] = flax.struct.field(default_factory=dict)
    average: dict[str, Any] = flax.struct.field(default_factory=dict)
    frozen: dict[str, Any] = flax.struct.field(default_factory=dict)
    extra: dict[str, Any] = flax.struct.field(default_factory=dict)


def start(
    networks: Mapping[str, Variables],
    opt: Mapping[str, PyTree],
    averaged: Sequence[str] = (),
    frozen: Mapping[str, Variables] | None = None,
    extra: Mapping[str, Any] | None = None,
) -> State:
    """Makes the first state of a run.

    Args:
      networks: initial Linen variables of the networks to train, by name.
      opt: initial states of the optimisers.
      averaged: names of the networks that have a moving average.
      frozen: Linen variables of the networks that are used and never trained.
      extra: whatever else the run keeps.

    Returns:
      The state before the first step.
    """
    return State(
        step=jnp.int32(0),
        params={name: held["params"] for name, held in networks.items()},
        opt=dict(opt),
        stats={name: held["batch_stats"] for name, held in networks.items() if held.get("batch_stats")},
        average={name: jax.tree.map(jnp.copy, _whole(networks[name])) for name in averaged},
        frozen=dict(frozen or {}),
        extra=dict(extra or {}),
    )


def variables(state: State, name: str, averaged: bool = True) -> Variables:
    """Returns a network's Linen variables, to `apply` it with.

    Args:
      state: of the run.
      name: of the network.
      averaged: take the moving average where the network has one.
    """
    if name in state.frozen:
        return state.frozen[name]
    if averaged and name in state.average:
        return state.average[name]
    return _whole({"params": state.params[name], "batch_stats": state.stats.get(name)})


def advance(
    state: State,
    params: Mapping[str, PyTree],
    opt: Mapping[str, PyTree],
    stats: Mapping[str, PyTree] | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: float = 0.0,
) -> State:
    """Makes the state after a training step: one step more, averages moved towards the new networks.

    Args:
      state: before the step.
      params: new parameters of the networks that the step changed.
      opt: new states of the optimisers that it used.
      stats: new batch statistics; those of networks that have none are left out.
      extra: new values in `extra`.
      keep: share of the moving averages that the step keeps, as in `moving_average`.

    Returns:
      The next state.
    """
    changed = {name: value for name, value in (stats or {}).items() if value}
    after = state.replace(
        step=state.step + 1,
        params={**state.params, **params},
        opt={**state.opt, **opt},
        stats={**state.stats, **changed},
        extra={**state.extra, **(extra or {})},
    )
    latest = {name: variables(after, name, averaged=False) for name in state.average}
    return after.replace(average=moving_average(state.average, latest, state.step, keep) if latest else {})


def moving_average(average: PyTree, latest: PyTree, step: Int[Array, ""], keep: float) -> PyTree:
    """Moves an exponential moving average on by one step.

    Args:
      average: the average before.
      latest: what the step made of the averaged values.
      step: training steps taken before.
      keep: share of the average that is kept, or (1 + step) / (10 + step) where that is less, as in TensorFlow, so that
        the first, fast changes are forgotten soon.

    Returns:
      The average.
    """
    return optax.incremental_update(latest, average, 1 - jnp.minimum(keep, (1 + step) / (10 + step)))


def _whole(held: Mapping[str, PyTree | None]) -> Variables:
    """Leaves out the collections that a network does not have."""
    return {"params": held["params"]} | ({"batch_stats": held["batch_stats"]} if held.get("batch_stats") else {})


@dataclasses.dataclass(frozen=True)
class Network:
    """A network that another run trained, as an argument of a recipe.

    An argument of `recipe()` annotated with this class is given by `config.borrow`, under the argument's name. Its
    variables are in `State.frozen` or `State.params`, wherever `init` puts those that it initialises.

    Attributes:
      module: takes images, first of all; returns (output, activations) or the output alone.
      shape: height, width, channels of the images that it was trained on.
      classes: their names, () where it knows none.
    """

    module: nn.Module
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one system is initialised, trained, evaluated and shown.

    `fit` jits `init`, `train_step` and `eval_step`; they are pure. The other functions run on the host between steps
    and jit what they want to. Every key is already unique to its step; a recipe splits it and never stores it.

    Attributes:
      networks: {name: nn.Module} of all networks, named as in the state.
      init: (key, batch) -> State. Uses the batch's shapes and dtypes only.
      train_step: (state, batch, key) -> (State, {name: scalar}); None: nothing is trained, and `config.steps` is 0.
      eval_step: (state, batch, key) -> {name: array}, one row an example of the batch.
      score: (iterator of (batch, outputs)) -> {name: float}. Rows are NumPy, padding already removed.
      visualise: (state, batch, key) -> {name: images}, NHWC in [0, 1].
      predict: (state, inputs, key) -> {name: array}, one row an input; `inputs["image"]` is NHWC in [0, 1].
      sample: (state, key, inputs) -> {name: images}, `inputs["count"]` rows, NHWC in [0, 1]; for systems that generate.
      predict_inputs: what `predict` reads of its inputs beside `image`, such as `label`, `style` or `mask`.
      sample_inputs: what `sample` reads of its inputs beside `count`.
      controls: () -> {row: {name: float}}. What simple or broken competitors score by the same measures.
    """

    networks: Mapping[str, nn.Module]
    init: Callable
    train_step: Callable | None
    eval_step: Callable
    score: Callable
    visualise: Callable
    predict: Callable | None = None
    sample: Callable | None = None
    predict_inputs: tuple[str, ...] = ()
    sample_inputs: tuple[str, ...] = ()
    controls: Callable | None = None

    @classmethod
    def of(cls, system: Any, controls: Callable | None = None) -> "Recipe":
        """Makes the recipe of an object whose attributes and methods are named as the fields.

        Args:
          system: a frozen dataclass.
          controls: the last field.

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
