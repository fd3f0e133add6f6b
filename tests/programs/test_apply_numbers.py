"""Numbers beside images, of apply's command line: the weight of guidance, and the deviation of noise."""

import argparse

import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.programs import apply

DESCRIBED = {
    "config": {"system": "x.y", "recipe": {"classes": ["cat", "dog"]}},
    "batch": {"image": [[4, 8, 8, 1], "float32"]},
}


def read(taken=("label", "mask", "guidance", "noise"), **given):
    absent = dict.fromkeys(("label", "style", "weights", "mask", "text", "guidance", "noise"))
    return apply.read_inputs(argparse.Namespace(**(absent | given)), DESCRIBED, taken)


def test_numbers_become_inputs():
    assert read(label="dog", guidance=0.0) == {"label": 1, "guidance": 0}
    assert read(noise=0.1) == {"noise": np.float32(0.1)} and read() == {}


@pytest.mark.parametrize(
    "given, words",
    [
        ({"guidance": 2.0}, r"--guidance=2.0 is towards a class: give --label as well"),
        ({"label": "dog", "guidance": -1.0}, r"--guidance=-1.0: expected a number of at least 0"),
        ({"label": "dog", "guidance": float("nan")}, r"--guidance=nan: expected a number of at least 0"),
        ({"noise": 0.0}, r"--noise=0.0: expected a number above 0"),
        ({"noise": float("inf")}, r"--noise=inf: expected a number above 0"),
        ({"mask": "hole.png", "noise": 0.1}, r"--mask=hole.png fills in, --noise=0.1 denoises: give either"),
        ({"taken": ("mask",), "noise": 0.1}, r"--noise=0.1: x.y does not take it; beside images it takes mask"),
    ],
)
def test_numbers_that_cannot_be(given, words):
    with pytest.raises(UserError, match=words):
        read(**given)
