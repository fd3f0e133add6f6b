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

# Inputs and outputs of a recipe's functions.
Batch = Mapping[str, Shaped[Array | np.ndarray, "..."]]
Params = Mapping[str, Any]
Variables = Mapping[str, Any]  # of a Linen module: {"params": ..., "batch_stats": ...}
Metrics = dict[str, Float[Array, ""]]
Pictures = dict[str, Float[Array | np.ndarray, "..."]]


@flax.struct.dataclass
class State:
    """Everything that a run keeps: one pytree, jitted, donated, sharded and saved as a whole.

    Attributes:
      step: training steps taken, an int32 scalar.
      params: parameters of the trained networks, by name.
      opt: optimiser states.
      stats: batch statistics (Linen's `batch_stats`) of the trained networks.
      average: moving averages of networks, as Linen variables.
      frozen: Linen variables of networks that are used but not trained.
      extra: anything else, such as image pools and archives.
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
    """Returns the first state of a run, at step 0.

    `networks` has the initial Linen variables of the trained networks, and `opt` the initial optimiser states;
    `averaged` names the networks to keep a moving average of.
    """
    return State(
        step=jnp.int32(0),
        params={name: network["params"] for name, network in networks.items()},
        opt=dict(opt),
        stats={name: network["batch_stats"] for name, network in networks.items() if network.get("batch_stats")},
        average={name: jax.tree.map(jnp.copy, _network_variables(networks[name])) for name in averaged},
        frozen=dict(frozen or {}),
        extra=dict(extra or {}),
    )


def variables(state: State, name: str, averaged: bool = True) -> Variables:
    """Returns a network's Linen variables: frozen, else (if `averaged`) the moving average, else the latest."""
    if name in state.frozen:
        return state.frozen[name]
    if averaged and name in state.average:
        return state.average[name]
    return _network_variables({"params": state.params[name], "batch_stats": state.stats.get(name)})


def advance(
    state: State,
    params: Mapping[str, PyTree],
    opt: Mapping[str, PyTree],
    stats: Mapping[str, PyTree] | None = None,
    extra: Mapping[str, Any] | None = None,
    keep: float = 0.0,
) -> State:
    """Returns the state after a training step, its moving averages updated with the decay `keep`.

    `params`, `opt`, `stats` and `extra` hold the changed entries; empty batch statistics are ignored.
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
    """Returns an exponential moving average with the latest values; `step` counts the training steps before this one.

    `keep` is the decay rate; early on (1 + step) / (10 + step) if that is smaller, as in TensorFlow, to forget initial
    values quickly.
    """
    return optax.incremental_update(latest, average, 1 - jnp.minimum(keep, (1 + step) / (10 + step)))


def _network_variables(network: Mapping[str, PyTree | None]) -> Variables:
    return {"params": network["params"]} | (
        {"batch_stats": network["batch_stats"]} if network.get("batch_stats") else {}
    )


@dataclasses.dataclass(frozen=True)
class Network:
    """A network trained by another run, as an argument of a recipe.

    An argument of `recipe()` annotated with this class comes from `config.borrow`, under the argument's name; one
    annotated `Network | None = None` may be left out there. Its variables go into `State.frozen` or `State.params`, as
    `init` decides.

    Attributes:
      module: called on images; returns (output, activations) or only the output.
      shape: height, width, channels of its training images.
      classes: class names, if any.
    """

    module: nn.Module
    shape: tuple[int, ...]
    classes: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How one system is initialised, trained, evaluated and shown.

    `fit` jits `init`, `train_step` and `eval_step`, which are pure. The other functions run on the host and jit inside.
    Every key is unique to its step; split it, never store it. All images are NHWC in [0, 1].

    Attributes:
      networks: the Linen modules, named as in the state.
      init: (key, batch) -> State. Uses only the shapes and dtypes of the batch.
      train_step: (state, batch, key) -> (State, {name: scalar}); None if nothing is trained (`config.steps=0`).
      eval_step: (state, batch, key) -> {name: array}, one row per example.
      score: (iterator of (batch, outputs)) -> {name: float}. Rows are NumPy, without padding.
      visualise: (state, batch, key) -> {name: images}; with `shows_outputs`, (state, batch, key, outputs).
      predict: (state, inputs, key) -> {name: array}, one row per image of `inputs["image"]`.
      sample: (state, key, inputs) -> {name: images}, `inputs["count"]` rows; only for generative systems.
      predict_inputs: inputs that `predict` reads beside `image`, such as `label`, `style` or `mask`.
      sample_inputs: inputs that `sample` reads beside `count`.
      shown_classes: names of the labels that `predict` returns or takes, where they are not the dataset's classes.
      any_size: `predict` takes images of any size, and `apply` then leaves that of the user's pictures as it is.
      shows_outputs: `visualise` also takes what `eval_step` returned for the batch, where that took long to compute.
      balanced: `train_step` compares examples of one class, so that a batch has to have several: `data.per_class`.
      conclude: (state, rows) -> State of the same shapes, once after the last step: what is fitted on the host, such
        as SVMs. `rows` maps (state, batch) -> arrays over training batches: an endless iterator of (outputs, batch).
      controls: () -> {row: {name: float}}. Scores of trivial or broken baselines by the same metrics.
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
    shown_classes: tuple[str, ...] = ()
    any_size: bool = False
    shows_outputs: bool = False
    balanced: bool = False
    conclude: Callable | None = None
    controls: Callable | None = None

    @classmethod
    def of(cls, system: Any, controls: Callable | None = None) -> "Recipe":
        """Makes the recipe of an object (a frozen dataclass) whose attributes and methods are named as the fields."""
        names = [field.name for field in dataclasses.fields(cls) if field.name != "controls"]
        return cls(**{name: getattr(system, name) for name in names if hasattr(system, name)}, controls=controls)


def descend(
    tx: optax.GradientTransformation,
    loss_fn: Callable[[PyTree], tuple[Array, Any]],
    params: PyTree,
    opt_state: PyTree,
) -> tuple[PyTree, PyTree, Array, Any]:
    """Takes one optimiser step on `loss_fn`, params -> (scalar loss, aux). A GAN calls it twice in a train step.

    Returns (new params, new opt_state, loss before the step, aux).
    """
    (loss, aux), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
    line_search = dict(value=loss, grad=gradients, value_fn=lambda p: loss_fn(p)[0])  # for optimisers that use one
    updates, opt_state = optax.with_extra_args_support(tx).update(gradients, opt_state, params, **line_search)
    return optax.apply_updates(params, updates), opt_state, loss, aux


def check_images(batch: Mapping[str, Any], shape: Sequence[int]) -> None:
    """Raises a UserError if a batch's images do not have the shape that a recipe was built for; called by `init`."""
    if batch["image"].shape[1:] != tuple(shape):
        raise UserError(
            f"the images are {batch['image'].shape[1:]}, but config.recipe.shape={tuple(shape)}: set it, or resize "
            "them by data.transforms and data.eval_transforms."
        )


def class_names(classes: int | Sequence[str]) -> tuple[str, ...]:
    """Returns the names of a recipe's `classes`, which are names already or a number n: "0" to "n - 1"."""
    return tuple(map(str, range(classes))) if isinstance(classes, int) else tuple(classes)


def count_classes(classes: int | Sequence[str] | None) -> int | None:
    """Returns the number of a recipe's `classes` (a number, names or None)."""
    return None if classes is None else len(class_names(classes))
