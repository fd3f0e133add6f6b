"""The benchmark of a GPU, as far as a CPU can tell: its cases, its batches, its table, and contestants that fail."""

import time
from functools import partial

import numpy as np
import pytest

from benchmarks import report

pytestmark = pytest.mark.slow


def waits(seconds):
    return partial(time.sleep, seconds)


def fails():
    raise ValueError("no memory")


def test_contestants_are_asked_for_a_value_and_may_fail():
    times, values = report.measure({"a": partial(waits, 0.0), "b": partial(waits, 0.12)}, 2, at_once=True)
    assert {name: len(rounds) for name, rounds in times.items()} == {"a": 2, "b": 2} and values == {"a": "a", "b": "b"}
    assert max(times["a"]) < 120 <= min(times["b"])
    with pytest.raises(RuntimeError, match="b failed"):
        report.measure({"a": partial(waits, 0.0), "b": fails}, 2)


@pytest.mark.parity
@pytest.mark.parametrize("smoke", [False, True])
def test_every_row_has_batches_of_its_shapes(smoke):
    pytest.importorskip("torch")
    from benchmarks import gpu, steps

    for name in gpu.CASES:
        config = gpu.experiment(name, smoke)
        if not config["system"]:
            continue
        config["data"]["batch"] = 2
        first, second = (steps.synthetic(config, seed) for seed in (0, 1))
        assert first["image"].shape == (2, *config["recipe"]["shape"]) and (first["image"] != second["image"]).any()
        assert config["precision"] == "bfloat16"
        if config["data"]["class_maps"]:
            assert first["class_map"].shape == first["image"].shape[:3]
            assert first["class_map"].max() == config["recipe"]["classes"] - 1 and first["class_map"].dtype == np.int32
        if config["data"]["max_boxes"]:
            size = np.array(config["recipe"]["shape"][1::-1])
            near, far = first["boxes"][first["mask"]][:, :2], first["boxes"][first["mask"]][:, 2:]
            assert (near >= 0).all() and (near < far).all() and (far <= size).all()
            assert not first["boxes"][~first["mask"]].any() and first["labels"].max() < config["recipe"]["classes"]


@pytest.mark.parity
def test_a_row_is_beside_the_faster_layout_and_its_memory():
    pytest.importorskip("torch")
    from benchmarks import gpu

    times = {"ours": [2.0, 2.0], "torch": [8.0, 8.0], "torch, channels last": [4.0, 4.0]}
    memory = {"ours": 2**30, "torch": 2**28, "torch, channels last": 2**31}
    line, met = gpu.row("DCGAN", times, memory, 0.25)
    assert line == "| DCGAN | 0.50 (0.50 to 0.50) | 2.00 | 4.00 | channels last | 1.00 / 2.00 GiB | 25% |" and met
    assert not gpu.row("DCGAN", times, memory | {"ours": 2**32}, 0.25)[1]
    assert not gpu.row("DCGAN", times | {"ours": [5.0, 5.0]}, memory, 0.25)[1]
