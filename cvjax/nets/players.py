"""Networks trained against each other in one training step, each with its optimiser and batch statistics."""

from collections.abc import Mapping
from typing import NamedTuple

import flax.linen as nn
from jaxtyping import Array, Float, Int, Key, PyTree

from cvjax import core
from cvjax.core import State


class Player(NamedTuple):
    """What training changes of one network."""

    params: PyTree
    opt: PyTree  # optimiser state
    stats: PyTree  # batch statistics, {} without any


def get_player(state: State, name: str) -> Player:
    """Returns a network's parameters, optimiser state and batch statistics; `name` is also that of its optimiser."""
    return Player(state.params[name], state.opt[name], state.stats.get(name, {}))


def advance(state: State, players: Mapping[str, Player], keep: float = 0.0) -> State:
    """Returns the state after a training step that changed these networks, by name; `keep` is as in `core.advance`."""
    params, opt, stats = ({name: player[field] for name, player in players.items()} for field in range(3))
    return core.advance(state, params, opt, stats, keep=keep)


def train_apply(
    key: Key[Array, ""],
    net: nn.Module,
    params: PyTree,
    stats: PyTree,
    *inputs: Float[Array, "..."] | Int[Array, "..."] | None,
) -> tuple[Float[Array, "batch ..."], PyTree]:
    """Returns (outputs, new batch statistics) of a network in training mode; `key` is for dropout."""
    variables = {"params": params, "batch_stats": stats}
    outputs, new = net.apply(variables, *inputs, train=True, mutable=["batch_stats"], rngs={"dropout": key})
    return outputs, new.get("batch_stats", {})
