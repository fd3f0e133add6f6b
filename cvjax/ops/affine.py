"""Images moved at random by maps that keep lines straight, compiled and differentiable."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Key


def jitter(
    key: Key[Array, ""],
    images: Float[Array, "batch height width channels"],
    shift: float,
    angle: float,
    zoom: float,
    border: str = "constant",
) -> Float[Array, "batch height width channels"]:
    """Returns images, each shifted, rotated and scaled at random about its centre, bilinearly.

    The limits are `shift` pixels along each axis, `angle` either way, and `zoom`, a relative change of size. What an
    image does not cover is black, or as `mode` of `jax.scipy.ndimage.map_coordinates` names it in `border`.
    """
    batch, height, width, _ = images.shape
    shift_key, angle_key, zoom_key = jax.random.split(key, 3)
    moves = jax.random.uniform(shift_key, (batch, 2, 1, 1), minval=-shift, maxval=shift)
    angles = jax.random.uniform(angle_key, (batch,), minval=-angle, maxval=angle)
    scales = jax.random.uniform(zoom_key, (batch,), minval=1 - zoom, maxval=1 + zoom)
    cos, sin = scales * jnp.cos(angles), scales * jnp.sin(angles)
    turns = jnp.stack([jnp.stack([cos, -sin], -1), jnp.stack([sin, cos], -1)], -2)
    centre = jnp.array([height - 1, width - 1]).reshape(2, 1, 1) / 2
    grid = jnp.stack(jnp.meshgrid(jnp.arange(height), jnp.arange(width), indexing="ij")) - centre
    sources = jnp.einsum("bij,jhw->bihw", turns, grid) + centre + moves  # where each pixel is read from

    def read(channel: Float[Array, "height width"], source: Float[Array, "2 height width"]):
        return jax.scipy.ndimage.map_coordinates(channel, [source[0], source[1]], order=1, mode=border)

    return jax.vmap(jax.vmap(read, in_axes=(-1, None), out_axes=-1))(images, sources)
