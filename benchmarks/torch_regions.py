"""Faster R-CNN by torchvision's own classes on a backbone like ours, to compare with in `benchmarks.regions`.

Its networks have the parameters of ours, number by number (tests/benchmarks/test_benchmarks_regions.py).
"""

from collections import OrderedDict
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.rpn import AnchorGenerator
from torchvision.ops import MultiScaleRoIAlign

from benchmarks.torch_detectors import ResNet

Recipe = Mapping[str, Any]


class Backbone(nn.Module):
    """The last stage of a ResNet, as the one map of a detector."""

    def __init__(self, features: Recipe):
        super().__init__()
        self.net = ResNet(features["depth"], features["width"], features["stem"], features["strides"])
        self.out_channels = self.net.features[len(features["strides"]) - 1]

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        """Returns the map by the name that torchvision's detectors expect."""
        return OrderedDict({"0": self.net(images)[-1]})


class ProposalHead(nn.Module):
    """torchvision's `RPNHead`, with a number of channels of its own."""

    def __init__(self, inputs: int, channels: int, anchors: int):
        super().__init__()
        self.conv = nn.Conv2d(inputs, channels, 3, padding=1)
        self.logits, self.offsets = nn.Conv2d(channels, anchors, 1), nn.Conv2d(channels, 4 * anchors, 1)

    def forward(self, levels: list[torch.Tensor]) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """Returns logits and offsets of each level."""
        shared = [F.relu(self.conv(x)) for x in levels]
        return [self.logits(x) for x in shared], [self.offsets(x) for x in shared]


def faster_rcnn(recipe: Recipe) -> FasterRCNN:
    """Builds torchvision's detector of a recipe of ours that reads a single map by RoIAlign."""
    proposing, classifying, classes = recipe["proposing"], recipe["classifying"], recipe["classes"]
    classes = classes if isinstance(classes, int) else len(classes)
    backbone = Backbone(recipe["features"])
    anchors = len(proposing["sizes"][0]) * len(proposing["ratios"])
    hidden, pooled = classifying["hidden"], classifying["pooled"]
    side = recipe["shape"][0]
    return FasterRCNN(
        backbone,
        min_size=side,
        max_size=side,
        image_mean=(0.0, 0.0, 0.0),  # the backbone standardises
        image_std=(1.0, 1.0, 1.0),
        rpn_anchor_generator=AnchorGenerator(tuple(proposing["sizes"]), (tuple(proposing["ratios"]),)),
        rpn_head=ProposalHead(backbone.out_channels, proposing["channels"], anchors),
        rpn_pre_nms_top_n_train=proposing["before"],
        rpn_pre_nms_top_n_test=proposing["test_before"],
        rpn_post_nms_top_n_train=proposing["after"],
        rpn_post_nms_top_n_test=proposing["test_after"],
        rpn_nms_thresh=proposing["iou_threshold"],
        rpn_batch_size_per_image=proposing["anchors"],
        box_roi_pool=MultiScaleRoIAlign(["0"], pooled, sampling_ratio=2),
        box_head=TwoMLPHead(backbone.out_channels * pooled**2, hidden),
        box_predictor=FastRCNNPredictor(hidden, classes + 1),
        box_score_thresh=recipe["detection"]["score_threshold"],
        box_nms_thresh=recipe["detection"]["iou_threshold"],
        box_detections_per_img=recipe["detection"]["max_detections"],
        box_batch_size_per_image=classifying["count"],
    )


def targets(batch: Mapping[str, torch.Tensor]) -> list[dict[str, torch.Tensor]]:
    """Returns the objects of a padded batch as torchvision takes them; its classes begin at 1."""
    rows = zip(*(batch[name] for name in ("boxes", "labels", "mask")), strict=True)
    return [{"boxes": boxes[mask], "labels": labels[mask].long() + 1} for boxes, labels, mask in rows]
