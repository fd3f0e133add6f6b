"""PixelCNN against torch with the same parameters, and its blind spot."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from pixel_models import make, seen_by_jacobian, whole_kernel

from cvjax.generative.autoregressive import pixelcnn

SHAPE = (6, 7, 3)


@pytest.mark.parity
@pytest.mark.parametrize("classes", [None, 4])
def test_network_is_torchs(classes):
    torch = pytest.importorskip("torch")
    net, params = make("pixelcnn", SHAPE, levels=5, classes=classes)
    images, labels = jax.random.uniform(jax.random.key(0), (4, *SHAPE)), np.array([2, 0, 3, 1])
    ours = jax.jit(net.apply)({"params": params}, images, None if classes is None else jnp.asarray(labels))

    def convolve(x, params, size, mask="B"):
        kernel = torch.tensor(whole_kernel(params, size, mask, 3).transpose(3, 2, 0, 1))
        bias = torch.tensor(np.asarray(params["bias"], np.float64))
        return torch.nn.functional.conv2d(x, kernel, bias, padding=(size[0] // 2, size[1] // 2))

    def bias_of(params):
        if classes is None:
            return 0.0
        return torch.tensor(np.asarray(params["ClassBias_0"]["Embed_0"]["embedding"])[labels][:, :, None, None])

    x = convolve(
        torch.tensor(np.asarray(2 * images - 1, np.float64).transpose(0, 3, 1, 2)), params["MaskedConv_0"], (5, 5), "A"
    )
    x = x + bias_of(params)
    for layer in range(2):
        block = params[f"ResidualBlock_{layer}"]
        y = convolve(torch.relu(x), block["MaskedConv_0"], (1, 1))
        y = convolve(torch.relu(y), block["MaskedConv_1"], (3, 3)) + bias_of(block)
        x = x + convolve(torch.relu(y), block["MaskedConv_2"], (1, 1))
    for layer in range(2):
        x = convolve(torch.relu(x), params["Head_0"][f"MaskedConv_{layer}"], (1, 1))
    theirs = x.reshape(4, 3, 5, *SHAPE[:2]).permute(0, 3, 4, 1, 2).numpy()
    np.testing.assert_allclose(ours, theirs, atol=1e-4)  # float32 through nine layers, logits of up to some tens


def test_there_is_a_blind_spot_that_no_number_of_layers_reaches():
    seen = seen_by_jacobian(*make("pixelcnn", (4, 5, 1), layers=4, first_kernel=3), (4, 5, 1))
    row = seen[3 * 5 + 1].reshape(4, 5)  # of the pixel in the last row, second column
    expected = [[1, 1, 1, 1, 1], [1, 1, 1, 1, 0], [1, 1, 1, 0, 0], [1, 0, 0, 0, 0]]
    np.testing.assert_array_equal(row, np.array(expected, bool))


def test_defaults_are_the_papers_on_cifar_10():
    recipe = pixelcnn.recipe(shape=(32, 32, 3))
    state = jax.eval_shape(recipe.init, jax.random.key(0), {"image": jnp.zeros((1, 32, 32, 3))})
    params = state.params["pixelcnn"]
    blocks = [name for name in params if "ResidualBlock" in name]
    assert len(blocks) == 15
    assert params["MaskedConv_0"]["kernel"].shape == (4, 7, 3, 256)
    shapes = [params[blocks[0]][f"MaskedConv_{index}"]["kernel"].shape for index in range(3)]
    assert shapes == [(1, 1, 256, 128), (2, 3, 128, 128), (1, 1, 128, 256)]
    shapes = [params["Head_0"][f"MaskedConv_{index}"]["kernel"].shape for index in range(2)]
    assert shapes == [(1, 1, 256, 1024), (1, 1, 1024, 768)]
