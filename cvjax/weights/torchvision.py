"""Names of the tensors in torchvision's checkpoints: VGG, AlexNet, ResNet, Inception v3, FCN, DeepLabv3.

A rule takes the names of the modules around an array, such as ("stage_2_block_1", "conv_1"), and returns torch's name
of that module, `layer1.0.conv1`, or None if there is none.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Any

import flax.linen as nn

from cvjax.nets import inception, resnet, vgg
from cvjax.nets.alexnet import AlexNet
from cvjax.weights.layouts import TORCH, ArrayPath, Layout, Tensors, from_torch, torch_shapes

Modules = tuple[str, ...]
Rule = Callable[[Modules], str | None]


def _apply(rule: Rule, paths: Iterable[ArrayPath]) -> dict[ArrayPath, str | None]:
    """The names of arrays by a rule for their modules."""
    found = {}
    for path in paths:
        module = rule(path[1:-1]) if path[1:-1] else None
        found[path] = None if module is None or path[-1] not in TORCH else f"{module}.{TORCH[path[-1]]}"
    return found


# --- ResNet -------------------------------------------------------------------------------------------------------

STEM = {"stem": "conv1", "stem_norm": "bn1"}
BLOCK = {
    **{f"conv_{index}": f"conv{index}" for index in (1, 2, 3)},
    **{f"norm_{index}": f"bn{index}" for index in (1, 2, 3)},
    **{"shortcut": "downsample.0", "shortcut_norm": "downsample.1"},
}


def name_resnet(modules: Modules) -> str | None:
    """Names a module of `ResNet`."""
    match modules:
        case (layer,):
            return STEM.get(layer)
        case (block, layer) if layer in BLOCK and (found := re.fullmatch(r"stage_(\d+)_block_(\d+)", block)):
            stage, index = map(int, found.groups())
            return f"layer{stage - 1}.{index - 1}.{BLOCK[layer]}"
    return None


def name_classifier(modules: Modules) -> str | None:
    """Names a module of `ResNet`, or of a classifier that has one as `resnet` and a dense layer `head`."""
    if modules == ("head",):
        return "fc"
    return name_resnet(modules[1:] if modules[:1] == ("resnet",) else modules)


# --- VGG and AlexNet ----------------------------------------------------------------------------------------------

VGG_HEAD = {"fc6": "classifier.0", "fc7": "classifier.3", "fc8": "classifier.6"}
ALEXNET = {
    **{f"conv{number}": f"features.{index}" for number, index in enumerate((0, 3, 6, 8, 10), start=1)},
    **{"fc6": "classifier.1", "fc7": "classifier.4", "fc8": "classifier.6"},
}


def name_vgg(paths: Iterable[ArrayPath]) -> dict[ArrayPath, str | None]:
    """Returns {path: name} for the paths of all arrays of a `VGG` or an `AlexNet`.

    Layers without arrays have numbers too, so those of a VGG depend on its depth and its normalisations.
    """
    paths = list(paths)
    layers = {path[1] for path in paths}
    if "conv1" in layers:
        return _apply(lambda modules: ALEXNET.get("/".join(modules)), paths)
    names, index, stage = dict(VGG_HEAD), 0, "1"
    for layer in sorted(layer for layer in layers if layer.startswith("conv")):
        place = layer.removeprefix("conv")
        index += place[0] != stage  # the pooling before it
        stage = place[0]
        names[layer] = f"features.{index}"
        if f"norm{place}" in layers:
            index += 1
            names[f"norm{place}"] = f"features.{index}"
        index += 2  # the convolution and its ReLU
    return _apply(lambda modules: names.get("/".join(modules)), paths)


# --- FCN and DeepLabv3 --------------------------------------------------------------------------------------------

FCN_HEAD = {"conv_1/conv": "0", "conv_1/norm": "1", "logits": "4"}
DEEPLAB_HEAD = {
    **{f"aspp/branch_{index + 1}/conv": f"0.convs.{index}.0" for index in range(4)},
    **{f"aspp/branch_{index + 1}/norm": f"0.convs.{index}.1" for index in range(4)},
    **{"aspp/pooled/conv": "0.convs.4.1", "aspp/pooled/norm": "0.convs.4.2"},
    **{"aspp/project/conv": "0.project.0", "aspp/project/norm": "0.project.1"},
    **{"conv_1/conv": "1", "conv_1/norm": "2", "logits": "4"},
}


def name_segmenter(paths: Iterable[ArrayPath]) -> dict[ArrayPath, str | None]:
    """Returns {path: name} for the paths of all arrays of a `ResNetSegmenter`, or of its `ResNet` alone."""
    paths = list(paths)
    table = DEEPLAB_HEAD if any(path[1:3] == ("head", "aspp") for path in paths) else FCN_HEAD
    heads = {"head": ("classifier", table), "auxiliary": ("aux_classifier", FCN_HEAD)}

    def rule(modules: Modules) -> str | None:
        if modules[0] in heads:
            prefix, names = heads[modules[0]]
            name = names.get("/".join(modules[1:]))
        else:
            prefix, name = "backbone", name_resnet(modules[1:] if modules[0] == "resnet" else modules)
        return None if name is None else f"{prefix}.{name}"

    return _apply(rule, paths)


# --- the layouts --------------------------------------------------------------------------------------------------

_layout = partial(Layout, shape=torch_shapes, arrange=from_torch, ignored=(".num_batches_tracked",))

VGG = _layout("torchvision's VGG or AlexNet", name_vgg, parts=("classifier.", "classifier.6."))
RESNET = _layout("torchvision's ResNet", partial(_apply, name_classifier), parts=("fc.",))
SEGMENTER = _layout("torchvision's FCN or DeepLabv3", name_segmenter, parts=("classifier.", "aux_classifier."))
INCEPTION = _layout("torch's Inception v3", partial(_apply, ".".join), parts=("AuxLogits.",))


def find_layout(tensors: Tensors) -> Layout | None:
    """Returns the layout of a file, or None if it has none of these."""
    return next((layout for sign, (layout, _) in SIGNS.items() if sign in tensors), None)


def describe(tensors: Tensors) -> str:
    """Returns the network that a file holds, such as "ResNet-101", or "" if it is not known."""
    return next((describe(tensors) for sign, (_, describe) in SIGNS.items() if sign in tensors), "")


def recognise(tensors: Tensors) -> nn.Module | None:
    """Returns the VGG or AlexNet, of any width, that a file holds, with its classifier if the file has one; else None.

    A file without `fc8`, the last layer of a VGG, holds a network that ends before it.
    """
    features = [tensors[name] for name in tensors if re.fullmatch(r"features\.\d+\.weight", name)]
    convolutions = sum(tensor.ndim == 4 for tensor in features)
    if convolutions == 5:
        return AlexNet(**_head(tensors, ALEXNET))
    depth = {sum(counts): depth for depth, counts in vgg.DEPTHS.items()}.get(convolutions)
    if depth is None or "features.0.weight" not in tensors:
        return None
    normalised = any(tensor.ndim == 1 for tensor in features)
    return vgg.VGG(depth, normalised, width=len(tensors["features.0.weight"]), **_head(tensors, VGG_HEAD))


def _head(tensors: Tensors, names: Mapping[str, str]) -> dict[str, Any]:
    """The attributes of a VGG or an AlexNet that its classifier in a file tells."""
    first, last = (tensors.get(f"{names[layer]}.weight") for layer in ("fc6", "fc8"))
    if first is None:
        return {}
    return {"head": "classifier", "hidden": len(first), "classes": None if last is None else len(last)}


def _describe_vgg(tensors: Tensors) -> str:
    net = recognise(tensors)
    if not isinstance(net, vgg.VGG):
        return "" if net is None else "AlexNet"
    return f"VGG-{net.depth}{' with batch norm' if net.batch_norm else ''}"


def _describe_resnet(tensors: Tensors, prefix: str = "") -> str:
    found = [re.fullmatch(rf"{prefix}layer(\d)\.\d+\.conv1\.weight", name) for name in tensors]
    stages = [match[1] for match in found if match]
    held = (f"{prefix}layer1.0.conv3.weight" in tensors, tuple(map(stages.count, "1234")))
    depths = {(block is resnet.Bottleneck, counts): depth for depth, (block, counts) in resnet.DEPTHS.items()}
    return f"ResNet-{depths[held]}" if held in depths else ""


def _describe_segmenter(tensors: Tensors) -> str:
    head = "DeepLabv3" if "classifier.0.convs.0.0.weight" in tensors else "FCN"
    backbone = _describe_resnet(tensors, "backbone.")
    return backbone and f"{head} over {backbone}"


def _describe_inception(tensors: Tensors) -> str:
    variants = {(count,): variant for variant, count in inception.CLASSES.items()}
    variant = variants.get(tensors["fc.bias"].shape) if "fc.bias" in tensors else None
    return "" if variant is None else f"Inception v3 ({variant})"


SIGNS = {  # a tensor that every file of a layout has, and no other
    "features.0.weight": (VGG, _describe_vgg),
    "layer1.0.conv1.weight": (RESNET, _describe_resnet),
    "backbone.layer1.0.conv1.weight": (SEGMENTER, _describe_segmenter),
    "Mixed_5b.branch1x1.conv.weight": (INCEPTION, _describe_inception),
}
