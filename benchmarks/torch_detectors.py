"""YOLOv2 and RetinaNet in torch, with their losses, to compare with ours in `benchmarks.detectors`.

Written as is usual in torch: default layout, and gathers instead of masks where they are faster. Outputs and losses
equal ours (tests/benchmarks/test_benchmarks_detectors.py).
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Recipe = Mapping[str, Any]
Objects = Mapping[str, torch.Tensor]

# --- boxes --------------------------------------------------------------------------------------------------------


def corners(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([boxes[..., :2] - boxes[..., 2:] / 2, boxes[..., :2] + boxes[..., 2:] / 2], -1)


def centres(boxes: torch.Tensor) -> torch.Tensor:
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], -1)


def iou(a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    """IoU of every pair, [..., n, m]."""
    near = torch.maximum(a[..., :, None, :2], b[..., None, :, :2])
    far = torch.minimum(a[..., :, None, 2:], b[..., None, :, 2:])
    overlap = (far - near).clamp(min=0).prod(-1)
    areas = [(box[..., 2:] - box[..., :2]).clamp(min=0).prod(-1) for box in (a, b)]
    return overlap / (areas[0][..., :, None] + areas[1][..., None, :] - overlap).clamp(min=1e-9)


# --- YOLOv2 -------------------------------------------------------------------------------------------------------


def block(inputs: int, outputs: int, kernel: int = 3) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, momentum=0.01), nn.LeakyReLU(0.1, inplace=True))


class YoloV2(nn.Module):
    """Darknet-19, the passthrough and the head of `cvjax.detection.yolov2`."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        width, inputs, stages = recipe["width"], recipe["shape"][2], []
        for stage, depth in enumerate(recipe["stages"]):
            wide, layers = width * 2**stage, [nn.MaxPool2d(2)] if stage else []
            for index in range(depth):
                outputs = wide // 2 if index % 2 else wide
                layers.append(block(inputs, outputs, 1 if index % 2 else 3))
                inputs = outputs
            stages.append(nn.Sequential(*layers))
        self.stages = nn.ModuleList(stages)
        self.head = nn.ModuleList(block(inputs, inputs) for _ in range(recipe["head"] - 1))
        joined = inputs
        if recipe["passthrough"]:
            self.passthrough = block(inputs // 2, 2 * width, 1)
            joined += 4 * 2 * width
        self.last = block(joined, inputs)
        self.anchors = len(recipe["anchors"])
        self.predictions = nn.Conv2d(inputs, self.anchors * (5 + recipe["classes"]), 1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """Returns [batch, rows, columns, anchors, 5 + classes] of NCHW images."""
        fine, x = None, images
        for stage in self.stages:
            fine, x = x, stage(x)
        for layer in self.head:
            x = layer(x)
        if hasattr(self, "passthrough"):
            x = torch.cat([self._reorganise(self.passthrough(fine)), x], 1)
        x = self.predictions(self.last(x))
        batch, _, rows, columns = x.shape
        return x.view(batch, self.anchors, -1, rows, columns).permute(0, 3, 4, 1, 2)

    @staticmethod
    def _reorganise(x: torch.Tensor) -> torch.Tensor:
        """Moves the four pixels of each 2x2 block into groups of channels."""
        return torch.cat([x[:, :, row::2, column::2] for row in (0, 1) for column in (0, 1)], 1)


def region_loss(outputs: torch.Tensor, objects: Objects, recipe: Recipe) -> torch.Tensor:
    """Darknet's loss of YOLOv2, averaged over images, without the prior on early predictions."""
    batch, rows, columns, count, _ = outputs.shape
    weights = recipe["loss"]
    stride = recipe["shape"][0] // rows
    anchors = torch.tensor(recipe["anchors"], device=outputs.device)
    mask = objects["mask"] & ~objects["difficult"] & ~objects["crowd"]
    image, row_of = mask.nonzero(as_tuple=True)
    boxes = centres(objects["boxes"][image, row_of]) / stride
    both = torch.minimum(boxes[:, None, 2:], anchors).prod(-1)
    anchor = (both / (boxes[:, 2:].prod(-1, keepdim=True) + anchors.prod(-1) - both)).argmax(-1)
    column, row = boxes[:, 0].long().clamp(0, columns - 1), boxes[:, 1].long().clamp(0, rows - 1)
    predictor = ((image * rows + row) * columns + column) * count + anchor
    order = torch.arange(len(predictor), device=outputs.device)
    last = order.new_zeros(outputs[..., 0].numel()).scatter_reduce(0, predictor, order, "amax")[predictor] == order
    image, row_of, boxes, anchor, column, row = (x[last] for x in (image, row_of, boxes, anchor, column, row))

    y, x = torch.meshgrid(torch.arange(rows), torch.arange(columns), indexing="ij")
    corner = torch.stack([x, y], -1).to(outputs)[:, :, None]
    with torch.no_grad():
        guesses = torch.cat([corner + outputs[..., :2].sigmoid(), anchors * outputs[..., 2:4].exp()], -1)
        guesses = corners(stride * guesses).view(batch, -1, 4)
        overlap = iou(guesses, objects["boxes"]) * mask[:, None]
        free = (overlap.amax(-1) <= weights["ignore_iou"]).view(batch, rows, columns, count)
    place = ((row * columns + column) * count + anchor, row_of)
    target = overlap[image, place[0], place[1]]
    free[image, row, column, anchor] = False
    chosen = outputs[image, row, column, anchor]
    wanted = torch.cat([boxes[:, :2] - torch.stack([column, row], -1), (boxes[:, 2:] / anchors[anchor]).log()], -1)
    errors = torch.cat([chosen[:, :2].sigmoid(), chosen[:, 2:4]], -1) - wanted
    importance = weights["coordinate_weight"] * (2 - boxes[:, 2:].prod(-1) / (rows * columns))
    total = (importance * errors.square().sum(-1)).sum() / 2
    total = total + weights["object_weight"] * (chosen[:, 4].sigmoid() - target).square().sum() / 2
    total = total + weights["no_object_weight"] * (free * outputs[..., 4].sigmoid().square()).sum() / 2
    labels = objects["labels"][image, row_of].long()
    return (total + weights["class_weight"] * F.cross_entropy(chosen[:, 5:], labels, reduction="sum")) / batch


# --- RetinaNet ----------------------------------------------------------------------------------------------------


class Residual(nn.Module):
    """A basic block, or a bottleneck for `expansion` 4, with torchvision's structure."""

    def __init__(self, inputs: int, features: int, stride: int, expansion: int, dilation: int = 1):
        super().__init__()
        outputs = features * expansion
        if expansion == 1:
            shapes = [(inputs, features, 3, stride), (features, features, 3, 1)]
        else:
            shapes = [(inputs, features, 1, 1), (features, features, 3, stride), (features, outputs, 1, 1)]
        layers = []
        for shape in shapes:
            layers += [self._convolution(*shape, dilation), nn.BatchNorm2d(shape[1]), nn.ReLU(inplace=True)]
        self.layers, self.shortcut = nn.Sequential(*layers[:-1]), nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(self._convolution(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs))

    @staticmethod
    def _convolution(inputs: int, outputs: int, kernel: int, stride: int, dilation: int = 1) -> nn.Conv2d:
        return nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2 * dilation, dilation, bias=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Applies the block."""
        return F.relu(self.layers(x) + self.shortcut(x))


RESNETS = {18: (1, (2, 2, 2, 2)), 34: (1, (3, 4, 6, 3)), 50: (4, (3, 4, 6, 3)), 101: (4, (3, 4, 23, 3))}


class ResNet(nn.Module):
    """The stages of `cvjax.nets.resnet.ResNet`; at output stride 16, the fourth takes no stride and is atrous."""

    def __init__(
        self, depth: int, width: int = 64, stem: str = "imagenet", strides=(1, 2, 2, 2), output_stride: int = 32
    ):
        super().__init__()
        expansion, depths = RESNETS[depth]
        small = stem == "small"
        first = nn.Conv2d(3, width, 3, padding=1, bias=False) if small else nn.Conv2d(3, width, 7, 2, 3, bias=False)
        layers = [first, nn.BatchNorm2d(width), nn.ReLU(inplace=True)] + [nn.MaxPool2d(3, 2, 1)] * (not small)
        self.stem, inputs, stages, dilation = nn.Sequential(*layers), width, [], 1
        for stage, stride in enumerate(strides):
            blocks, features = [], width * 2**stage
            atrous = stage == 3 and output_stride == 16
            for index in range(depths[stage]):
                step = 1 if index or atrous else stride
                blocks.append(Residual(inputs, features, step, expansion, dilation))
                inputs, dilation = features * expansion, 2 if atrous else 1
            stages.append(nn.Sequential(*blocks))
        self.stages = nn.ModuleList(stages)
        self.features = [width * 2**stage * expansion for stage in range(len(stages))]

    def forward(self, images: torch.Tensor) -> list[torch.Tensor]:
        """Returns the features of each stage, of NCHW images in [0, 1]."""
        x, maps = self.stem(standardise(images)), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return maps


STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def standardise(images: torch.Tensor) -> torch.Tensor:
    """Removes ImageNet's mean and deviation from images in [0, 1]."""
    mean, deviation = (torch.tensor(rows, device=images.device).view(3, 1, 1) for rows in STATISTICS)
    return (images - mean) / deviation


class RetinaNet(nn.Module):
    """ResNet, feature pyramid and subnets of `cvjax.detection.retinanet`."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        channels = recipe["channels"]
        self.resnet = ResNet(recipe["depth"], recipe["width"], recipe["stem"], recipe["strides"])
        inputs, last = self.resnet.features[-1], len(self.resnet.features) + 1
        self.levels, self.finest = recipe["levels"], min(recipe["levels"])
        self.lateral = nn.ModuleList(
            nn.Conv2d(self.resnet.features[level - 2], channels, 1) for level in range(self.finest, last + 1)
        )
        within = [level for level in self.levels if level <= last]
        self.smooth = nn.ModuleList(nn.Conv2d(channels, channels, 3, padding=1) for _ in within)
        self.coarse = nn.ModuleList(
            nn.Conv2d(inputs if index == 0 else channels, channels, 3, 2, 1)
            for index in range(len(self.levels) - len(within))
        )
        anchors = len(recipe["scales"]) * len(recipe["ratios"])
        self.classes = recipe["classes"]
        self.classify = self._subnet(channels, recipe["subnet_depth"], anchors * self.classes)
        self.regress = self._subnet(channels, recipe["subnet_depth"], anchors * 4)
        nn.init.constant_(self.classify[-1].bias, -math.log((1 - recipe["prior"]) / recipe["prior"]))

    @staticmethod
    def _subnet(channels: int, depth: int, outputs: int) -> nn.Sequential:
        layers = []
        for _ in range(depth):
            layers += [nn.Conv2d(channels, channels, 3, padding=1), nn.ReLU(inplace=True)]
        return nn.Sequential(*layers, nn.Conv2d(channels, outputs, 3, padding=1))

    def forward(self, images: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Returns logits [batch, anchors, classes] and offsets [batch, anchors, 4] of NCHW images."""
        maps = self.resnet(images)
        x = maps[-1]
        pyramid, merged = [], None
        for index, lateral in reversed(list(enumerate(self.lateral))):
            own = lateral(maps[index + self.finest - 2])
            merged = own if merged is None else own + F.interpolate(merged, size=own.shape[2:], mode="nearest")
            if index < len(self.smooth):
                pyramid.insert(0, self.smooth[index](merged))
        for index, layer in enumerate(self.coarse):
            x = layer(x if index == 0 else F.relu(x))
            pyramid.append(x)

        def of_each_anchor(outputs: torch.Tensor, size: int) -> torch.Tensor:
            return outputs.permute(0, 2, 3, 1).reshape(len(outputs), -1, size)

        logits = torch.cat([of_each_anchor(self.classify(x), self.classes) for x in pyramid], 1)
        return logits, torch.cat([of_each_anchor(self.regress(x), 4) for x in pyramid], 1)


def focal_loss(
    outputs: tuple[torch.Tensor, torch.Tensor], objects: Objects, anchors: torch.Tensor, recipe: Recipe
) -> torch.Tensor:
    """Focal and smooth L1 loss, each divided by the image's number of positive anchors, averaged over images."""
    logits, deltas = outputs
    present = objects["mask"] & ~objects["difficult"] & ~objects["crowd"]
    with torch.no_grad():
        overlap = iou(anchors, objects["boxes"]).masked_fill(~present[:, None], -1.0)
        greatest, matched = overlap.max(-1)
        positive = greatest >= 0.5
        if recipe["force_match"]:
            peaks = overlap.amax(1, keepdim=True)
            positive |= ((overlap >= peaks * (1 - 1e-6)) & (peaks > 0)).any(-1)
        ignored = ~positive & (greatest >= 0.4)
        count = positive.sum(1).clamp(min=1)
    image, anchor = positive.nonzero(as_tuple=True)
    row = matched[image, anchor]
    targets = torch.zeros_like(logits)
    targets[image, anchor, objects["labels"][image, row].long()] = 1.0
    entropy = F.binary_cross_entropy_with_logits(logits, targets, reduction="none")
    alpha = 1.0 if recipe["alpha"] is None else recipe["alpha"] * targets + (1 - recipe["alpha"]) * (1 - targets)
    focal = alpha * (1 - (-entropy).exp()) ** recipe["gamma"] * entropy
    classification = (focal * ~ignored[..., None]).sum((1, 2)) / count
    box, own = centres(objects["boxes"][image, row]), centres(anchors)[anchor]
    wanted = torch.cat([(box[:, :2] - own[:, :2]) / own[:, 2:], (box[:, 2:] / own[:, 2:]).log()], -1)
    moved = F.smooth_l1_loss(deltas[image, anchor], wanted, beta=recipe["beta"], reduction="none").sum(-1)
    return (classification.sum() + (moved / count[image]).sum()) / len(logits)
