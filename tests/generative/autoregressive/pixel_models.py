"""Tiny autoregressive networks with random parameters, what each value of an image has to see, whole masked kernels."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from cvjax.generative.autoregressive.gated_pixelcnn import GatedPixelCNN
from cvjax.generative.autoregressive.pixelcnn import PixelCNN
from cvjax.generative.autoregressive.pixelrnn import PixelRNN

NETS = {"pixelcnn": PixelCNN, "gated_pixelcnn": GatedPixelCNN, "pixelrnn": PixelRNN}
FIRST, KERNEL = 5, 3


@functools.cache
def make(name, shape, levels=4, classes=None, layers=2, first_kernel=FIRST, seed=0, kernel=KERNEL):
    """A network and random parameters for it: no bias is 0, no two classes are alike."""
    options = {} if name == "pixelcnn" else {"channels": shape[2]}
    net = NETS[name](levels, classes, layers, 6, first_kernel, kernel, head=9, **options)
    labels = None if classes is None else jnp.zeros(1, jnp.int32)
    described = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *shape)), labels)["params"]
    noise = np.random.default_rng(seed)

    def draw(leaf):
        deviation = 0.5 if leaf.ndim < 3 else 1.5 / np.sqrt(np.prod(leaf.shape[:-1]))
        return jnp.asarray(noise.normal(0, deviation, leaf.shape), jnp.float32)

    return net, jax.tree.map(draw, described)


def seen_by_jacobian(net, params, shape, images=4):
    """[values, values]: whether the logits of the first change with the second, of any of some random images."""
    size = int(np.prod(shape))

    def logits(pixels):
        return net.apply({"params": params}, pixels.reshape(1, *shape)).reshape(size, -1)

    inputs = jax.random.uniform(jax.random.key(1), (images, size))
    return np.asarray((jax.jit(jax.vmap(jax.jacfwd(logits)))(inputs) != 0).any(axis=(0, 2)))


class Sight:
    """Which values of an image [height, width, channels] each group of features at each pixel has seen."""

    def __init__(self, seen):
        """Takes [height, width, groups, values]."""
        self.seen = seen

    @classmethod
    def of_image(cls, shape):
        size = int(np.prod(shape))
        return cls(np.eye(size, dtype=bool).reshape(*shape, size))

    def __or__(self, other):
        return Sight(self.seen | other.seen)

    def down(self):
        """Moved down by a row."""
        return Sight(np.concatenate([np.zeros_like(self.seen[:1]), self.seen[:-1]]))

    def spread(self, height, width, mask):
        """Through a convolution, tap by tap; mask None: all rows down to the own, all channels."""
        rows, columns, groups, _ = self.seen.shape
        found = np.zeros_like(self.seen)
        for r, c, g in np.ndindex(rows, columns, groups):
            for dr in range(-(height // 2), 1):
                for dc in range(-(width // 2), width // 2 + 1):
                    if not (r >= -dr and 0 <= c + dc < columns):
                        continue
                    for source in range(groups):
                        before = dr < 0 or dc < 0 or (dc == 0 and (source < g or (mask == "B" and source == g)))
                        if mask is None or before:
                            found[r, c, g] |= self.seen[r + dr, c + dc, source]
        return Sight(found)


def seen_by_definition(name, shape, layers=2, first_kernel=FIRST):
    """[values, values]: what the papers' figures let each value see, followed from layer to layer."""
    image = Sight.of_image(shape)
    if name == "gated_pixelcnn":
        vertical, sight = image.down(), None
        for layer in range(layers):
            size = KERNEL if layer else first_kernel
            vertical = vertical.spread(size, size, None)
            sight = (
                image.spread(1, size, "A") | vertical if layer == 0 else sight | sight.spread(1, size, "B") | vertical
            )
    else:
        sight = image.spread(first_kernel, first_kernel, "A")
        for _ in range(layers):
            sight = sight | (sight.spread(KERNEL, KERNEL, "B") if name == "pixelcnn" else recurrent(sight))
    size = int(np.prod(shape))
    return sight.spread(1, 1, "B").seen.reshape(size, size)


def recurrent(sight):
    """Through a Row LSTM: the row itself to the left, and the state of the row above on both sides."""
    state = sight.spread(1, KERNEL, "B").seen.copy()
    for row in range(1, len(state)):
        above = state[row - 1].any(axis=1)  # no mask of channels
        for column in range(above.shape[0]):
            state[row, column] |= above[max(0, column - KERNEL // 2) : column + KERNEL // 2 + 1].any(axis=0)
    return Sight(state)


def whole_kernel(params, size, mask, channels, parts=1):
    """A masked convolution's kernel [height, width, inputs, outputs] as others hold it, float64, masked by zeros."""
    height, width = size
    kernel = np.zeros((height, width, *params["kernel"].shape[2:]))
    kernel[: height // 2 + 1] = params["kernel"]
    inputs, outputs = kernel.shape[2:]
    source = np.repeat(np.arange(channels), inputs // channels)
    target = np.tile(np.repeat(np.arange(channels), outputs // parts // channels), parts)
    for i, o in np.ndindex(inputs, outputs):
        if not (source[i] < target[o] or (mask == "B" and source[i] == target[o])):
            kernel[height // 2, width // 2, i, o] = 0
    kernel[height // 2, width // 2 + 1 :] = 0
    return kernel
