"""Tensors of ncnn's files, written by hand as its documentation says."""

from pathlib import Path

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.weights.ncnn import read_ncnn

PATH = Path("net.bin")
GRAPH = """7767517
5 5
Input         data    0 1 data
Convolution   first   1 1 data a 0=3 1=3 11=1 4=1 5=1 6=9 9=2 -23310=1,2.000000e-01
Split         split   1 2 a b c
Convolution   second  1 1 b d 0=2 1=1 6=6
Eltwise       add     2 1 d c e 0=1 -23301=2,2.000000e-01,1.000000e+00
"""
HALF, FLOAT = (0x01306B47).to_bytes(4, "little"), bytes(4)
FIRST, BIAS = np.arange(9, dtype="<f2") / 2, np.float32([1, 2, 3])
SECOND = np.arange(6, dtype="<f4")
PAD = b"\x07\x07"  # nine numbers of two bytes end between multiples of four
CONTENT = HALF + FIRST.tobytes() + PAD + BIAS.tobytes() + FLOAT + SECOND.tobytes()


def test_convolutions_are_read_in_the_order_of_the_graph():
    found = read_ncnn(PATH, GRAPH, CONTENT)
    assert list(found) == ["first.weight", "first.bias", "second.weight"]  # the second has no bias
    np.testing.assert_array_equal(found["first.weight"], FIRST.reshape(3, 1, 1, 3))  # one row of three columns
    np.testing.assert_array_equal(found["second.weight"], SECOND.reshape(2, 3, 1, 1))
    np.testing.assert_array_equal(found["first.bias"], BIAS)
    assert found["first.weight"].dtype == np.float16 and found["second.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("graph", "content", "message"),
    [
        ("PK" + GRAPH, CONTENT, r"net\.bin: its graph does not begin with 7767517"),
        (GRAPH.replace("Split  ", "PReLU  "), CONTENT, r"split is a layer PReLU, whose weights are not read"),
        (GRAPH.replace("6=9", "6=10"), CONTENT, r"first has 10 weights for 3 kernels of 1x3"),
        (GRAPH, (0x000D4B38).to_bytes(4, "little") + CONTENT[4:], r"first are of the type 0xd4b38, which is not read"),
        (GRAPH, CONTENT[:-1], r"net\.bin ends within second: it has 63 bytes"),
        (GRAPH, CONTENT + bytes(4), r"has 68 bytes, of which its graph knows 64"),
    ],
)
def test_what_is_not_understood_is_refused(graph, content, message):
    with pytest.raises(UserError, match=message):
        read_ncnn(PATH, graph, content)
