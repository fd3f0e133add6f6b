"""The axes of published kernels, number by number."""

import numpy as np

from cvjax.weights import layouts

PATH = ("params", "layer", "kernel")


def test_each_number_of_torchs_kernels_goes_to_its_place():
    weight = np.arange(2 * 3 * 4 * 5).reshape(2, 3, 4, 5)  # out, in, height, width
    for tensor in (weight, weight.reshape(2, -1)):  # the second of a layer that sees its whole input
        assert tensor.shape in layouts.torch_shapes(PATH, (4, 5, 3, 2))
        kernel = layouts.from_torch(tensor, PATH, (4, 5, 3, 2))
        assert kernel.shape == (4, 5, 3, 2)
        for (out, channel, row, column), number in np.ndenumerate(weight):
            assert kernel[row, column, channel, out] == number
    matrix = layouts.from_torch(weight[0, 0], PATH, (5, 4))
    assert layouts.torch_shapes(PATH, (5, 4)) == [(4, 5)] and matrix[3, 2] == weight[0, 0, 2, 3]


def test_each_number_of_kerass_kernels_goes_to_its_place():
    depthwise = ("params", "separable_conv1", "depthwise", "kernel")
    weight = np.arange(2 * 3 * 4).reshape(2, 3, 4, 1)  # height, width, channels, one kernel a channel
    assert layouts.keras_shapes(depthwise, (2, 3, 1, 4)) == [(2, 3, 4, 1)]
    kernel = layouts.from_keras(weight, depthwise, (2, 3, 1, 4))
    assert kernel.shape == (2, 3, 1, 4)
    for (row, column, channel, _), number in np.ndenumerate(weight):
        assert kernel[row, column, 0, channel] == number
    pointwise = np.arange(6).reshape(1, 1, 2, 3)
    assert layouts.keras_shapes(PATH, (1, 1, 2, 3)) == [(1, 1, 2, 3)]
    np.testing.assert_array_equal(layouts.from_keras(pointwise, PATH, (1, 1, 2, 3)), pointwise)
