"""Gated PixelCNN against torch with the same parameters; it has no blind spot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_models import make, seen_by_jacobian, whole_kernel

SHAPE = (6, 7, 3)


@pytest.mark.parity
@pytest.mark.parametrize("classes", [None, 4])
def test_network_is_torchs(classes):
    torch = pytest.importorskip("torch")
    net, params = make("gated_pixelcnn", SHAPE, levels=5, classes=classes)
    images, labels = jax.random.uniform(jax.random.key(0), (4, *SHAPE)), np.array([2, 0, 3, 1])
    ours = jax.jit(net.apply)({"params": params}, images, None if classes is None else jnp.asarray(labels))

    def tensor(array):
        return torch.tensor(np.asarray(array, np.float64))

    def convolve(x, params, kernel):
        kernel = tensor(kernel.transpose(3, 2, 0, 1))
        padding = (kernel.shape[2] // 2, kernel.shape[3] // 2)
        return torch.nn.functional.conv2d(x, kernel, tensor(params["bias"]), padding=padding)

    def pointwise(x, params):
        return convolve(x, params, whole_kernel(params, (1, 1), "B", 3))

    def gate(x, params):
        if classes is not None:
            x = x + tensor(params["Embed_0"]["embedding"])[labels][:, :, None, None]
        return torch.tanh(x[:, :6]) * torch.sigmoid(x[:, 6:])

    across = tensor(2 * images - 1).permute(0, 3, 1, 2)
    down = torch.nn.functional.pad(across, (0, 0, 1, 0))[:, :, :-1]
    for layer, size in enumerate((5, 3)):
        block = params[f"stack_{layer}"]
        kernel = np.zeros((size, size, *block["vertical"]["kernel"].shape[2:]))
        kernel[: size // 2 + 1] = block["vertical"]["kernel"]  # the rows below are 0, none of the others masked
        down = convolve(down, block["vertical"], kernel)
        link = convolve(down, block["link"], np.asarray(block["link"]["kernel"]))
        down = gate(down, block.get("vertical_class"))
        kernel = whole_kernel(block["horizontal"], (1, size), "B" if layer else "A", 3, parts=2)
        x = gate(convolve(across, block["horizontal"], kernel) + link, block.get("horizontal_class"))
        x = pointwise(x, block["output"])
        across = across + x if layer else x
    for layer in range(2):
        across = pointwise(torch.relu(across), params["outputs"][f"MaskedConv_{layer}"])
    theirs = across.reshape(4, 3, 5, *SHAPE[:2]).permute(0, 3, 4, 1, 2).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-5)  # float32 through eight layers


def test_there_is_no_blind_spot():
    shape = (4, 5, 1)  # all within reach of a 3 x 3 kernel and three more
    seen = seen_by_jacobian(*make("gated_pixelcnn", shape, layers=4, first_kernel=3), shape)
    np.testing.assert_array_equal(seen, np.tri(20, k=-1, dtype=bool))
