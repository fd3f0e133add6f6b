"""Optimisers from plain dicts: any of optax by name, with schedule, warm-up, clipping, weight decay and accumulation.

    dict(name="adam", learning_rate=2e-4, b1=0.5)
    dict(name="sgd", learning_rate=0.1, momentum=0.9, nesterov=True, weight_decay=5e-4, warmup=500,
         schedule=dict(name="cosine_decay_schedule", decay_steps=20_000))

Any other key is an argument of the optimiser, or of the schedule, under its name in optax. None means absent.

    name           a function of `optax` or `optax.contrib` whose first argument is the learning rate
    learning_rate  peak of the schedule, or the constant rate; optional if optax has a number as default
    schedule       a function of `optax.schedules`; the learning rate is its `peak_value`, `init_value` or `value`
    warmup         W: update n < W uses n/W of the schedule's first rate; the schedule starts at update W
    clip           maximum global norm of the gradient
    clip_value     maximum magnitude of each gradient entry; applied before `clip`
    weight_decay   the optimiser's own decay if it has one (adamw, lamb, lion, ...); otherwise (adam, sgd, rmsprop) the
                   L2 term of torch.optim: decay times parameter is added to the clipped gradient
    decay_mask     parameters that decay: "kernels" (the default: those called `kernel` or `embedding`), "all", or a
                   list of names
    multipliers    {"mapping": 0.01}: factors of the updates below a path in the parameters; the longest path wins
    accumulate     K: one update from the mean gradient of K steps; warm-up and schedule count updates, not steps
"""

import functools
import inspect
import types
import typing
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Literal

import chex
import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float, Int, PyTree

from cvjax.core import descend
from cvjax.errors import UserError, suggest
from cvjax.signature import Argument, Count, Natural, NonNegative, Positive, match

KERNELS = ("kernel", "embedding")  # Linen's names for weights; biases and scales of norms do not decay
RATES = ("peak_value", "init_value", "value")  # arguments of schedules that can be the learning rate
DECAYS = ("weight_decay", "weight_decay_rate")
MASKS = ("mask", "weight_decay_mask")


def build(config: Mapping[str, Any]) -> optax.GradientTransformation:
    """Builds an optimiser for `core.descend` from a dict as in the module's docstring."""
    name, factory, own, arguments = _read(config)
    parameters = inspect.signature(factory).parameters
    arguments[next(iter(parameters))] = _rate(name, factory, own)
    decay = own.get("weight_decay", 0)
    own_decay, own_mask = (next((n for n in names if n in parameters), None) for names in (DECAYS, MASKS))
    mask = _decay_mask(own.get("decay_mask", "kernels"), required=decay > 0)
    if own_mask:
        arguments[own_mask] = mask
    if own_decay and decay:
        if not own_mask and own.get("decay_mask") != "all":
            raise UserError(f"optimiser {name!r} decays all parameters or none: set decay_mask='all'.")
        arguments[own_decay] = decay
    chain = [optax.clip(own["clip_value"])] if "clip_value" in own else []
    chain += [optax.clip_by_global_norm(own["clip"])] if "clip" in own else []
    chain += [optax.add_decayed_weights(decay, mask)] if decay and not own_decay else []
    chain += [_check_step(name, _call(f"optimiser {name!r}", factory, arguments))]
    chain += [_scale_by_path(own["multipliers"])] if "multipliers" in own else []
    tx = optax.chain(*chain)
    accumulate = own.get("accumulate", 1)
    return optax.MultiSteps(tx, accumulate).gradient_transformation() if accumulate > 1 else tx


def learning_rate(config: Mapping[str, Any], step: int | Int[Array, ""]) -> Float[Array, ""]:
    """Returns the learning rate of the update after `step` training steps, before `multipliers`."""
    name, factory, own, _ = _read(config)
    rate = _rate(name, factory, own)
    return jnp.asarray(rate(step // own.get("accumulate", 1)) if callable(rate) else rate, jnp.float32)


@functools.cache
def optimisers() -> dict[str, Callable[..., optax.GradientTransformation]]:
    """Returns all optimisers of optax by name."""
    functions = _functions(optax.contrib) | _functions(optax)
    first = {name: next(iter(inspect.signature(function).parameters), "") for name, function in functions.items()}
    return {n: f for n, f in functions.items() if first[n].endswith("learning_rate") and not n.startswith("scale_by_")}


@functools.cache
def schedules() -> dict[str, Callable[..., optax.Schedule]]:
    """Returns all schedules of optax by name."""
    functions = _functions(optax.schedules)
    return {n: f for n, f in functions.items() if inspect.signature(f).return_annotation == optax.Schedule}


def _functions(module: types.ModuleType) -> dict[str, Callable]:
    return {name: f for name, f in inspect.getmembers(module, inspect.isfunction) if not name.startswith("_")}


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


class Own(typing.TypedDict, total=False):
    """The keys of an optimiser's dict that are not arguments of optax's function."""

    learning_rate: NonNegative
    schedule: Mapping[str, Any]
    warmup: Natural
    clip: Positive
    clip_value: Positive
    weight_decay: NonNegative
    decay_mask: Literal["kernels", "all"] | tuple[str, ...]
    multipliers: Mapping[str, NonNegative]
    accumulate: Count


OWN = {name: Argument(hint, False) for name, hint in typing.get_type_hints(Own, include_extras=True).items()}


def _read(config: Mapping[str, Any]) -> tuple[str, Callable, dict[str, Any], dict[str, Any]]:
    """Returns the optimiser's name and function, the values of the `Own` keys, and the arguments for optax."""
    known = optimisers()
    name = config.get("name")
    if name not in known:
        raise UserError(f"optimiser name={name!r}: optax has no such optimiser. {suggest(name, known)}")
    where = f"optimiser {name!r}"
    values = {key: value for key, value in config.items() if key != "name" and (value is not None or key not in OWN)}
    own = match({key: values.pop(key) for key in OWN if key in values}, OWN, "", call=where)
    rate, *others = inspect.signature(known[name]).parameters.values()
    ours = {rate.name, *DECAYS, *MASKS}
    return name, known[name], own, _arguments(where, values, {p.name: p for p in others if p.name not in ours})


def _arguments(where: str, values: Mapping, parameters: Mapping[str, inspect.Parameter]) -> dict[str, Any]:
    """Checks the arguments of an optax function."""
    arguments = {name: Argument(_annotation(p), p.default is p.empty) for name, p in parameters.items()}
    return match(values, arguments, "", call=where, also=list(OWN))


def _annotation(parameter: inspect.Parameter) -> Any:
    """Returns the type that a parameter of optax may have in a config: a scalar if it can be one, never an array."""
    hint = parameter.annotation
    if isinstance(parameter.default, tuple):
        return tuple
    union = typing.get_origin(hint) in (typing.Union, types.UnionType)
    kinds = typing.get_args(hint) if union else (hint,)
    scalar = next((kind for kind in (float, int, bool) if kind in kinds), None)
    if scalar is None:
        return hint if typing.get_origin(hint) is Literal else object
    return scalar | None if parameter.default is None or type(None) in kinds else scalar


def _call(where: str, function: Callable, arguments: Mapping[str, Any]) -> Any:
    try:
        return function(**arguments)
    except (TypeError, ValueError) as error:
        raise UserError(f"{where} rejects its arguments: {error}") from error


def _rate(name: str, factory: Callable, own: Mapping[str, Any]) -> float | optax.Schedule:
    """Combines learning rate, schedule and warm-up."""
    rate = own.get("learning_rate")
    if "schedule" in own:
        rate = _schedule(own["schedule"], rate)
    elif rate is None:
        rate = next(iter(inspect.signature(factory).parameters.values())).default
        if not _number(rate):  # with None, optax's adadelta ascends
            raise UserError(f"optimiser {name!r} needs a value for 'learning_rate'.")
    warmup = own.get("warmup", 0)
    if not warmup:
        return rate
    after = rate if callable(rate) else optax.constant_schedule(rate)
    return optax.join_schedules([optax.linear_schedule(0.0, after(0), warmup), after], [warmup])


def _schedule(config: Mapping[str, Any], rate: float | None) -> optax.Schedule:
    """Builds a schedule whose leading value is the learning rate, unless it sets its own."""
    known = schedules()
    values = dict(config)
    name = values.pop("name", None)
    if name not in known:
        raise UserError(f"schedule name={name!r}: optax has no such schedule. {suggest(name, known)}")
    where = f"schedule {name!r}"
    parameters = inspect.signature(known[name]).parameters
    leading = next((n for n in RATES if n in parameters), None)
    if "schedules" in values and "schedules" in parameters:  # join_schedules: each part may have its own rate
        values["schedules"] = [_schedule(p, None if set(RATES) & p.keys() else rate) for p in values["schedules"]]
    elif rate is not None and (leading is None or leading in values):
        raise UserError(f"{where} sets its own rates: leave out learning_rate={rate}.")
    elif rate is not None:
        values[leading] = rate
    if isinstance(values.get("boundaries_and_scales"), Mapping):  # keys are strings in JSON
        values["boundaries_and_scales"] = {int(k): v for k, v in values["boundaries_and_scales"].items()}
    return _call(where, known[name], _arguments(where, values, parameters))


def _paths(tree: PyTree) -> PyTree:
    """Maps each leaf to its path, such as `mapping/dense/kernel`."""
    return jax.tree_util.tree_map_with_path(
        lambda path, _: jax.tree_util.keystr(path, simple=True, separator="/"), tree
    )


def _decay_mask(which: str | Iterable[str], required: bool) -> Callable[[PyTree], PyTree]:
    """Returns a function from parameters to a tree of bools: True if weight decay applies."""
    names = KERNELS if which == "kernels" else which

    def mask(params: PyTree) -> PyTree:
        decays = jax.tree.map(lambda path: which == "all" or path.split("/")[-1] in names, _paths(params))
        if required and not any(jax.tree.leaves(decays)):
            known = {path.split("/")[-1] for path in jax.tree.leaves(_paths(params))}
            raise UserError(f"weight_decay: decay_mask={which!r} selects no parameter. {suggest(which, known)}")
        return decays

    return mask


def _scale_by_path(multipliers: Mapping[str, float]) -> optax.GradientTransformation:
    """Multiplies the updates below each path by a factor, to give parts of a network their own learning rate."""

    def factor(path: str) -> float:
        inside = [prefix for prefix in multipliers if f"{path}/".startswith(f"{prefix}/")]
        return multipliers[max(inside, key=len)] if inside else 1.0

    def init(params: PyTree) -> optax.EmptyState:
        paths = jax.tree.leaves(_paths(params))
        for prefix in multipliers:
            if not any(f"{path}/".startswith(f"{prefix}/") for path in paths):
                tops = {"/".join(path.split("/")[: prefix.count("/") + 1]) for path in paths}
                raise UserError(f"multipliers: no parameter is below {prefix!r}. {suggest(prefix, tops)}")
        return optax.EmptyState()

    def update(updates: PyTree, state: optax.EmptyState, params: PyTree = None) -> tuple[PyTree, optax.EmptyState]:
        del params
        return jax.tree.map(lambda path, update: factor(path) * update, _paths(updates), updates), state

    return optax.GradientTransformation(init, update)


def _check_step(name: str, tx: optax.GradientTransformation) -> optax.GradientTransformation:
    """Traces one step, to reject optimisers that need more arguments than `descend` passes."""

    def update(gradients: PyTree, state: PyTree, params: PyTree, **extra: Any) -> tuple[PyTree, PyTree]:
        updates, state = optax.with_extra_args_support(tx).update(gradients, state, params, **extra)
        # dpsgd needs one row per example and would silently sum over the wrong axis.
        chex.assert_trees_all_equal_shapes(updates, params)
        return updates, state

    def step(params: PyTree) -> PyTree:
        tried = optax.GradientTransformationExtraArgs(tx.init, update)
        return descend(tried, lambda p: (jnp.sum(p["kernel"] ** 2), None), params, tx.init(params))

    try:
        jax.eval_shape(step, {"kernel": jax.ShapeDtypeStruct((2, 3), jnp.float32)})
    except Exception as error:  # whatever optax raises if a loss value or an objective is missing
        raise UserError(f"optimiser {name!r} needs more arguments per step than descend passes: {error}") from error
    return tx
