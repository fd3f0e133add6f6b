"""Maxima of many windows of a map, in a time that does not depend on the size of the windows."""

from functools import reduce

import jax.numpy as jnp
from jax import lax
from jaxtyping import Array, Float, Int

Edges = Int[Array, "batch windows"]
Table = tuple[Float[Array, "*table"], Int[Array, "*table"]]  # values, and the flat cells that have them

TABLED = 64  # channels of which the maxima of windows are held at a time


def window_maxima(
    features: Float[Array, "batch rows columns channels"], top: Edges, bottom: Edges, left: Edges, right: Edges
) -> Float[Array, "batch windows channels"]:
    """Returns the maxima of windows, whose far edges are exclusive; 0 of empty ones.

    The gradient of a window is that of the first cell, row by row, that has its maximum.
    """
    batch, rows, columns, channels = features.shape
    chosen = _first_maxima(lax.stop_gradient(features), (top, bottom), (left, right))
    flat = features.reshape(batch, rows * columns, channels)
    return jnp.take_along_axis(flat, chosen, axis=1, mode="fill", fill_value=0)


def _first_maxima(
    features: Float[Array, "batch rows columns channels"], down: tuple[Edges, Edges], across: tuple[Edges, Edges]
) -> Int[Array, "batch windows channels"]:
    """Which cell of the flat map has the maximum of each window and channel, the first of equals; none of an empty one.

    A window is the union of four of 1, 2, 4, ... rows and columns, whose maxima are known. They take some thirty times
    the map, of some channels at a time.
    """
    batch, rows, columns, channels = features.shape
    parts = -(-channels // TABLED)
    each = -(-channels // parts)
    padded = jnp.pad(features, ((0, 0), (0, 0), (0, 0), (0, parts * each - channels)))
    padded = jnp.moveaxis(padded.reshape(batch, rows, columns, parts, each), 3, 1)

    def of_part(part: Array, down: tuple[Array, Array], across: tuple[Array, Array]) -> Array:
        place = jnp.broadcast_to(jnp.arange(rows * columns).reshape(rows, columns, 1), part.shape)
        tables = _double(_double((part, place), 0), 2)  # [wide, tall, rows, columns, channels] each
        values, places = (table.reshape(-1, each) for table in tables)
        tall, wide = (31 - lax.clz(jnp.maximum(far - near, 1)) for near, far in (down, across))
        ends = (down[0], down[1] - (1 << tall)), (across[0], across[1] - (1 << wide))
        level = wide * tables[0].shape[1] + tall
        corners = [(level * rows + y) * columns + x for y in ends[0] for x in ends[1]]
        found = [tuple(jnp.take(table, at, axis=0, mode="clip") for table in (values, places)) for at in corners]
        there = (down[1] > down[0]) & (across[1] > across[0])
        return jnp.where(there[:, None], reduce(_better, found)[1], rows * columns)

    def of_image(given: tuple[Array, tuple, tuple]) -> Array:
        return lax.map(lambda part: of_part(part, *given[1:]), given[0])

    chosen = lax.map(of_image, (padded, down, across))  # [batch, parts, windows, channels]
    return jnp.moveaxis(chosen, 1, -2).reshape(batch, -1, parts * each)[..., :channels]


def _better(one: Table, other: Table) -> Table:
    """The larger values with their places; of equal ones those of the smaller place."""
    take = (other[0] > one[0]) | ((other[0] == one[0]) & (other[1] < one[1]))
    return tuple(jnp.where(take, new, old) for old, new in zip(one, other, strict=True))


def _double(table: Table, axis: int) -> tuple[Array, Array]:
    """Maxima and places of windows of 1, 2, 4, ... cells along an axis, which are a new first axis; the last run over.

    A scan, because XLA's CPU compiler would fuse each window with all that it is made of, and compute them many times.
    """

    def wider(table: Table, step: Int[Array, ""]) -> tuple[Table, Table]:
        found = _better(table, tuple(jnp.roll(part, -step, axis) for part in table))  # what comes round is never read
        return found, found

    steps = 1 << jnp.arange(table[0].shape[axis].bit_length() - 1)
    _, others = lax.scan(wider, table, steps)
    return tuple(jnp.concatenate([first[None], rest]) for first, rest in zip(table, others, strict=True))
