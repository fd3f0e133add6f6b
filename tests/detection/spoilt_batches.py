"""Batches such as a detector meets once in a million steps, after which its parameters have to be finite still."""

import jax
import jax.numpy as jnp


def _first_box(*corners):
    return lambda batch: {
        "boxes": batch["boxes"].at[:, 0].set(jnp.array(corners)),
        "mask": batch["mask"].at[:, 0].set(True),
    }


def _rubbish(batch, padding):
    return {
        "mask": batch["mask"] & ~padding,
        "boxes": jnp.where(padding[..., None], jnp.nan, batch["boxes"]),
        "labels": jnp.where(padding, 1000, batch["labels"]),
    }


SPOILT = {
    "no objects": lambda batch: {"mask": jnp.zeros_like(batch["mask"])},
    "rubbish in padding alone": lambda batch: _rubbish(batch, jnp.ones_like(batch["mask"])),
    "rubbish in padding beside objects": lambda batch: _rubbish(batch, ~batch["mask"].at[:, 0].set(False)),
    "a point": _first_box(9.0, 9.0, 9.0, 9.0),
    "a line": _first_box(9.0, 9.0, 9.0, 19.0),
    "thinner than float32 tells": _first_box(9.0, 9.0, 9.0 + 1e-6, 9.0 + 1e-6),
    "inside out": lambda batch: {"boxes": batch["boxes"][..., jnp.array([2, 3, 0, 1])]},
    "outside": lambda batch: {"boxes": batch["boxes"] + 1000},
    "far outside": lambda batch: {"boxes": batch["boxes"] - 1e6},
    "larger than the image": _first_box(-1e4, -1e4, 1e4, 1e4),
}


def spoil(batch, how):
    """A batch of the same shapes with one thing odd about its objects."""
    batch = jax.tree.map(jnp.asarray, dict(batch))
    return {**batch, **SPOILT[how](batch)}


def finite(*trees):
    return all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(trees))
