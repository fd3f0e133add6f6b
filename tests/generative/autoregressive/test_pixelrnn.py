"""Row LSTM against its recurrence, pixel by pixel in NumPy."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_models import make, whole_kernel
from scipy.special import expit

SHAPE = (5, 6, 3)


def convolve(x, params, size, mask="B", parts=1):
    """A masked convolution, pixel by pixel."""
    kernel, reach = whole_kernel(params, size, mask, 3, parts), (size[0] // 2, size[1] // 2)
    padded = np.pad(x, ((0, 0), (reach[0],) * 2, (reach[1],) * 2, (0, 0)))
    out = np.zeros((*x.shape[:3], kernel.shape[3]))
    for row, column in np.ndindex(x.shape[1:3]):
        window = padded[:, row : row + size[0], column : column + size[1]]
        out[:, row, column] = np.einsum("bhwi,hwio->bo", window, kernel)
    return out + np.asarray(params["bias"])


def row_lstm(x, params, bias):
    """Equation 3 at each pixel: the row above at three taps, the row itself at two."""
    gates, kernel = convolve(x, params["input_to_state"], (1, 3), parts=4) + bias, np.asarray(params["kernel"])
    batch, height, width, _ = gates.shape
    features = gates.shape[3] // 4
    hidden, cell = np.zeros((2, batch, height, width, features))
    for row, column in np.ndindex(height, width):
        z = gates[:, row, column].copy()
        for tap in range(3):
            if row > 0 and 0 <= column + tap - 1 < width:
                z += hidden[:, row - 1, column + tap - 1] @ kernel[tap]
        o, f, i, g = (z[:, n * features : (n + 1) * features] for n in range(4))
        before = cell[:, row - 1, column] if row > 0 else 0.0
        cell[:, row, column] = expit(f) * before + expit(i) * np.tanh(g)
        hidden[:, row, column] = expit(o) * np.tanh(cell[:, row, column])
    return hidden


@pytest.mark.parametrize("classes", [None, 4])
def test_network_is_the_recurrence(classes):
    net, params = make("pixelrnn", SHAPE, levels=5, classes=classes)
    images, labels = jax.random.uniform(jax.random.key(0), (4, *SHAPE)), np.array([2, 0, 3, 1])
    ours = jax.jit(net.apply)({"params": params}, images, None if classes is None else jnp.asarray(labels))

    def bias_of(name):
        return 0.0 if classes is None else np.asarray(params[name]["Embed_0"]["embedding"])[labels][:, None, None]

    x = convolve(2 * np.asarray(images, np.float64) - 1, params["first"], (5, 5), "A") + bias_of("first_class")
    for layer in range(2):
        hidden = row_lstm(x, params[f"recurrent_{layer}"], bias_of(f"gates_class_{layer}"))
        x = x + convolve(hidden, params[f"widen_{layer}"], (1, 1))
    for layer in range(2):
        x = convolve(np.maximum(x, 0), params["outputs"][f"MaskedConv_{layer}"], (1, 1))
    np.testing.assert_allclose(ours, x.reshape(ours.shape), atol=1e-5)  # float32 through seven layers and five rows
