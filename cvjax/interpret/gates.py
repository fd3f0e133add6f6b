"""Functions whose ReLUs let another gradient pass: guided backpropagation and deconvolutional networks.

Deconvnet: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901), section 2.1.
Guided backpropagation: Springenberg et al., Striving for Simplicity, 2015 (arXiv:1412.6806), figure 1.

Nothing in the network changes: the function is traced to a jaxpr, and that is evaluated again with other ReLUs. A ReLU
is `jax.nn.relu` or a maximum of an array and zero; `jax.nn.relu6` is a ReLU and a minimum, whose own gradient stays.
Other functions that have derivatives of their own, such as softplus, stay as they are; so do `jnp.clip` and the
variance of Flax's normalisation, max(0, E[x^2] - E[x]^2).
"""

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var, jaxpr_as_fun
from jaxtyping import Array, Float

from cvjax.errors import UserError

Numbers = Float[Array, "*shape"]
Gate = Callable[[Numbers, Numbers], Numbers]  # (input of the ReLU, gradient of its output) -> gradient of its input

JIT, REMAT = ("jit", "pjit", "closed_call", "core_call"), ("remat2", "checkpoint", "remat")
MOVES = ("broadcast_in_dim", "convert_element_type", "reshape", "copy")  # zeros stay zeros
PARTS = {"max", "min", *MOVES, *JIT}  # of ReLU and ReLU6


def guided(fn: Callable) -> Callable:
    """Returns a function with the outputs of `fn`, of which ReLUs pass only positive gradients, where they were active.

    It may be compiled, mapped and differentiated in reverse. `fn` may be compiled too, rematerialised, and have scans
    and branches. Raises a UserError when called if `fn` has no ReLU, or has one in a while loop, where no gradient
    passes.
    """
    return _gated(fn, lambda x, gradient: jnp.where((x > 0) & (gradient > 0), gradient, 0), "guided")


def deconvnet(fn: Callable) -> Callable:
    """Returns a function with the outputs of `fn`, of which ReLUs pass all positive gradients and no others.

    All else is as for `guided`.
    """
    return _gated(fn, lambda x, gradient: jnp.maximum(gradient, 0), "deconvnet")


def _gated(fn: Callable, gate: Gate, name: str) -> Callable:
    @functools.wraps(fn)
    def gated(*args, **kwargs):
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        if not has_relu(closed.jaxpr):
            raise UserError(f"{name}: the function has no ReLU (jax.nn.relu, or a maximum of an array and 0).")
        values = jax.tree.leaves((args, kwargs))
        outputs = _Evaluation(_relu(gate), name)(closed.jaxpr, closed.consts, values)
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return gated


def _relu(gate: Gate) -> Callable[[Numbers], Numbers]:
    @jax.custom_vjp
    def relu(x):
        return jnp.maximum(x, 0)

    relu.defvjp(lambda x: (relu(x), x), lambda x, gradient: (gate(x, gradient),))
    return relu


# --- ReLUs in a jaxpr ---------------------------------------------------------------------------------------------


class _Scope:
    """What is known of the variables of a jaxpr: which are 0, and which equation each comes from."""

    def __init__(self, jaxpr: Jaxpr, zeros: Sequence[bool] = ()):
        self.jaxpr = jaxpr
        self.made_by = {variable: eqn for eqn in jaxpr.eqns for variable in eqn.outvars}
        self.zeros = {variable for variable, zero in zip(jaxpr.invars, zeros, strict=False) if zero}
        for eqn in jaxpr.eqns:
            if eqn.primitive.name in MOVES and self.is_zero(eqn.invars[0]):
                self.zeros |= set(eqn.outvars)

    def is_zero(self, atom: Var | Literal) -> bool:
        """Returns whether a value is known to be 0."""
        return bool(np.ndim(atom.val) == 0 and atom.val == 0) if isinstance(atom, Literal) else atom in self.zeros

    def find_relu(self, eqn: JaxprEqn) -> int | None:
        """Returns which operand of an equation is the ReLU's input, or None if the equation is no ReLU."""
        if eqn.primitive.name != "max" or not jnp.issubdtype(eqn.outvars[0].aval.dtype, jnp.floating):
            return None
        inputs = [index for index, atom in enumerate(eqn.invars) if not self.is_zero(atom)]
        return inputs[0] if len(inputs) == 1 and not self._is_variance(eqn.invars[inputs[0]]) else None

    def _is_variance(self, atom: Var | Literal) -> bool:
        difference = None if isinstance(atom, Literal) else self.made_by.get(atom)
        if difference is None or difference.primitive.name != "sub":
            return False
        square = difference.invars[1]
        made_by = None if isinstance(square, Literal) else self.made_by.get(square)
        return made_by is not None and made_by.primitive.name in ("square", "integer_pow")

    def inner(self, eqn: JaxprEqn) -> list[Jaxpr]:
        """Returns the jaxprs in an equation's parameters that have a ReLU."""
        kind = eqn.primitive.name
        found = _jaxprs(eqn)
        if kind in JIT and eqn.params.get("name") == "clip":
            return []
        if kind.startswith("custom_") and not (kind == "custom_jvp_call" and _primitives(found[0]) <= PARTS):
            return []
        return [jaxpr for jaxpr in found if has_relu(jaxpr, self.zeros_inside(eqn, jaxpr))]

    def zeros_inside(self, eqn: JaxprEqn, jaxpr: Jaxpr) -> Sequence[bool]:
        """Returns which arguments of a jaxpr in an equation's parameters are known to be 0 at every call of it."""
        zeros, kind = [self.is_zero(atom) for atom in eqn.invars], eqn.primitive.name
        if kind in (*JIT, *REMAT, "custom_jvp_call"):
            return zeros
        if kind == "cond":
            return zeros[1:]
        if kind == "scan":  # a carry that starts at 0 stays 0 where a step returns it as it came
            consts, before = _scan_sizes(eqn, jaxpr)
            changed = {n for n in range(consts, before) if jaxpr.outvars[n - consts] is not jaxpr.invars[n]}
            return [zero and n not in changed for n, zero in enumerate(zeros)]
        if kind == "while":
            first, second = eqn.params["cond_nconsts"], eqn.params["body_nconsts"]
            return zeros[:first] if jaxpr is eqn.params["cond_jaxpr"].jaxpr else zeros[first : first + second]
        return ()


def has_relu(jaxpr: Jaxpr, zeros: Sequence[bool] = ()) -> bool:
    """Returns whether there is a ReLU in a jaxpr, or in one inside it; `zeros` tells which arguments are known as 0."""
    scope = _Scope(jaxpr, zeros)
    return any(scope.find_relu(eqn) is not None or scope.inner(eqn) for eqn in jaxpr.eqns)


def _scan_sizes(eqn: JaxprEqn, step: Jaxpr) -> tuple[int, int]:
    """Number of a scan's constants, and of its constants and carries together."""
    # Constants and carry are as in the step, rows have an axis more; how JAX counts them depends on its version.
    before = sum(map(_same_rank, eqn.invars, step.invars))
    return before - sum(map(_same_rank, eqn.outvars, step.outvars)), before


def _same_rank(outer: Var | Literal, inner: Var | Literal) -> bool:
    return len(outer.aval.shape) == len(inner.aval.shape)


def _jaxprs(eqn: JaxprEqn) -> list[Jaxpr]:
    """The jaxprs in an equation's parameters, opened."""
    found = []
    for value in eqn.params.values():
        for part in value if isinstance(value, (tuple, list)) else (value,):
            part = getattr(part, "jaxpr", part)
            found += [part] if isinstance(part, Jaxpr) else []
    return found


def _primitives(jaxpr: Jaxpr) -> set[str]:
    names = {eqn.primitive.name for eqn in jaxpr.eqns}
    return names.union(*(_primitives(inner) for eqn in jaxpr.eqns for inner in _jaxprs(eqn)))


# --- evaluation ---------------------------------------------------------------------------------------------------


class _Evaluation:
    """Evaluates a jaxpr with another function in place of its ReLUs; `name` begins messages."""

    def __init__(self, relu: Callable[[Numbers], Numbers], name: str):
        self.relu, self.name = relu, name

    def __call__(
        self, jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any], zeros: Sequence[bool] = ()
    ) -> list[Any]:
        """Returns the outputs of a jaxpr."""
        scope = _Scope(jaxpr, zeros)
        return evaluate(jaxpr, consts, arguments, functools.partial(self._apply, scope))

    def _apply(self, scope: _Scope, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        place, kind = scope.find_relu(eqn), eqn.primitive.name
        if place is not None:
            return [self.relu(jnp.broadcast_to(values[place], eqn.outvars[0].aval.shape))]
        if not scope.inner(eqn):
            return bind(scope.jaxpr, eqn, values)
        if kind in (*JIT, "custom_jvp_call"):
            inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
            return self._call(scope, eqn, inner, *values)
        if kind in REMAT:
            kept = jax.checkpoint(
                functools.partial(self._call, scope, eqn, eqn.params["jaxpr"]),
                prevent_cse=eqn.params["prevent_cse"],
                policy=eqn.params["policy"],
            )
            return kept(*values)
        if kind == "scan":
            return self._scan(scope, eqn, values)
        if kind == "cond":
            branches = [functools.partial(self._call, scope, eqn, branch) for branch in eqn.params["branches"]]
            return jax.lax.switch(values[0], branches, *values[1:])
        raise UserError(
            f"{self.name}: there is a ReLU inside {kind!r}, where it cannot be replaced. jit, remat, scan and cond may "
            "have ReLUs inside."
        )

    def _call(self, scope: _Scope, eqn: JaxprEqn, inner: Any, *values: Any) -> list[Any]:
        jaxpr, consts = _open(inner)
        return self(jaxpr, consts, values, scope.zeros_inside(eqn, jaxpr))

    def _scan(self, scope: _Scope, eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        inner = eqn.params["jaxpr"]
        start, before = _scan_sizes(eqn, _open(inner)[0])
        consts, first, rows, carried = values[:start], values[start:before], values[before:], before - start

        def step(carry, row):
            outputs = self._call(scope, eqn, inner, *consts, *carry, *row)
            return outputs[:carried], outputs[carried:]

        options = {name: eqn.params[name] for name in ("length", "reverse", "unroll")}
        carry, stacked = jax.lax.scan(step, first, rows, **options)
        return [*carry, *stacked]


def _open(jaxpr: Any) -> tuple[Jaxpr, Sequence[Any]]:
    """A jaxpr and the values of its constants, closed or not."""
    return getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ())


def inline(fn: Callable) -> Callable:
    """Returns a function equal to `fn` that has no compiled or rematerialised functions inside when it is traced."""

    @functools.wraps(fn)
    def inlined(*args, **kwargs):
        closed, shapes = jax.make_jaxpr(fn, return_shape=True)(*args, **kwargs)
        outputs = _inline(closed.jaxpr, closed.consts, jax.tree.leaves((args, kwargs)))
        return jax.tree.unflatten(jax.tree.structure(shapes), outputs)

    return inlined


def _inline(jaxpr: Jaxpr, consts: Sequence[Any], arguments: Sequence[Any]) -> list[Any]:
    def apply(eqn: JaxprEqn, values: list[Any]) -> list[Any]:
        if eqn.primitive.name not in (*JIT, *REMAT):
            return bind(jaxpr, eqn, values)
        inner = eqn.params["jaxpr"] if "jaxpr" in eqn.params else eqn.params["call_jaxpr"]
        return _inline(*_open(inner), values)

    return evaluate(jaxpr, consts, arguments, apply)


def evaluate(
    jaxpr: Jaxpr,
    consts: Sequence[Any],
    arguments: Sequence[Any],
    apply: Callable[[JaxprEqn, list[Any]], list[Any]],
) -> list[Any]:
    """Returns the outputs of a jaxpr; `apply` takes each equation and its inputs to the outputs."""
    values = dict(zip([*jaxpr.constvars, *jaxpr.invars], [*consts, *arguments], strict=True))

    def read(atom: Var | Literal) -> Any:
        return atom.val if isinstance(atom, Literal) else values[atom]

    for eqn in jaxpr.eqns:
        values |= zip(eqn.outvars, apply(eqn, [read(atom) for atom in eqn.invars]), strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def bind(jaxpr: Jaxpr, eqn: JaxprEqn, values: Sequence[Any]) -> list[Any]:
    """Returns the outputs of one equation of a jaxpr as it stands."""
    taken = {atom: value for atom, value in zip(eqn.invars, values, strict=True) if not isinstance(atom, Literal)}
    unnamed = jaxpr.debug_info._replace(arg_names=None, result_paths=None)
    alone = Jaxpr((), [*taken], eqn.outvars, [eqn], eqn.effects, unnamed)
    return jaxpr_as_fun(ClosedJaxpr(alone, ()))(*taken.values())
