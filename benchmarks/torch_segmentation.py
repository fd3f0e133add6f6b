"""U-Net, DeepLabv3+, ResNet and VGG in torch, to compare with ours in `benchmarks.segmentation`.

They have as many parameters as ours (tests/benchmarks/test_benchmarks_segmentation.py), which are themselves compared
with torch in the tests of each network.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from benchmarks.torch_detectors import ResNet

Recipe = Mapping[str, Any]


# --- backbones ----------------------------------------------------------------------------------------------------


class Features(nn.Module):
    """The last features of a `ResNet`."""

    def __init__(self, depth: int, width: int):
        super().__init__()
        self.resnet = ResNet(depth, width)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The features of the last stage."""
        return self.resnet(images)[-1]


def vgg(depths: Sequence[int], width: int) -> nn.Sequential:
    """The features of `cvjax.nets.vgg.VGG`, without normalisation."""
    layers, inputs = [], 3
    for count, outputs in zip(depths, (width, 2 * width, 4 * width, 8 * width, 8 * width), strict=True):
        for _ in range(count):
            layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU(inplace=True)]
            inputs = outputs
        layers.append(nn.MaxPool2d(2))
    return nn.Sequential(*layers)


# --- segmenters ---------------------------------------------------------------------------------------------------


class UNet(nn.Module):
    """U-Net of unpadded convolutions, that sees images with mirrored borders."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        widths = [recipe["width"] * 2**level for level in range(recipe["depth"] + 1)]
        self.margin, self.dropout = 6 * 2 ** recipe["depth"] - 4, nn.Dropout(recipe["dropout"])
        self.down = nn.ModuleList(
            self._convolve(i, o) for i, o in zip([recipe["shape"][2], *widths], widths, strict=False)
        )
        pairs = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, 2) for i, o in pairs)
        self.expand = nn.ModuleList(self._convolve(i, o) for i, o in pairs)
        self.logits = nn.Conv2d(widths[0], recipe["classes"], 1)

    @staticmethod
    def _convolve(inputs: int, outputs: int) -> nn.Sequential:
        relu = nn.ReLU(inplace=True)
        return nn.Sequential(nn.Conv2d(inputs, outputs, 3), relu, nn.Conv2d(outputs, outputs, 3), relu)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits of every pixel, of NCHW images whose size needs no further margin."""
        x, levels = F.pad(2 * images - 1, (self.margin,) * 4, mode="reflect"), []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            x = self.dropout(x) if level >= len(self.down) - 2 else x
            levels.append(x)
        for skip, up, expand in zip(levels[-2::-1], self.up, self.expand, strict=True):
            x = up(x)
            top, left = ((old - new) // 2 for old, new in zip(skip.shape[2:], x.shape[2:], strict=True))
            skip = skip[:, :, top : top + x.shape[2], left : left + x.shape[3]]
            x = expand(torch.cat([skip, x], 1))
        return self.logits(x)


def block(inputs: int, outputs: int, kernel: int, dilation: int = 1) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2 * dilation, dilation=dilation, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


class DeepLab(nn.Module):
    """DeepLabv3+ with a ResNet, at output stride 16."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        backbone, features, low = recipe["backbone"], recipe["features"], recipe["low_features"]
        self.resnet = ResNet(backbone["depth"], backbone["width"], output_stride=recipe["output_stride"])
        first, *_, last = self.resnet.features
        self.branches = nn.ModuleList([block(last, features, 1), *(block(last, features, 3, r) for r in (6, 12, 18))])
        self.pooled, self.project = block(last, features, 1), block(5 * features, features, 1)
        self.dropout, self.low = nn.Dropout(recipe["dropout"]), block(first, low, 1)
        self.decoder = nn.Sequential(block(features + low, features, 3), block(features, features, 3))
        self.logits = nn.Conv2d(features, recipe["classes"], 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The logits of every pixel, of NCHW images."""
        first, *_, last = self.resnet(images)
        mean = self.pooled(last.mean((2, 3), keepdim=True)).expand(-1, -1, *last.shape[2:])
        x = self.project(torch.cat([*(branch(last) for branch in self.branches), mean], 1))
        x = F.interpolate(self.dropout(x), first.shape[2:], mode="bilinear", align_corners=False)
        x = self.logits(self.decoder(torch.cat([x, self.low(first)], 1)))
        return F.interpolate(x, images.shape[2:], mode="bilinear", align_corners=False)
