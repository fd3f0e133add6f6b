"""Detections, masks and joints of a torchvision R-CNN with random weights, by its weights in ours."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import start
from cvjax.detection import mask_rcnn
from cvjax.detection.detector import Detection
from cvjax.detection.faster_rcnn import Classifying, Features
from cvjax.detection.mask_rcnn import Branches
from cvjax.detection.rpn import Proposing
from cvjax.weights import networks

CLASSES, SIZE, CHANNELS, HIDDEN, JOINTS = 4, 64, 16, 24, 3
INNER = (12, 20)  # channels of both branches
RECIPE = dict(
    shape=(SIZE, SIZE, 3),
    classes=CLASSES,
    keypoints=JOINTS,
    branches=Branches(mask_channels=INNER, keypoint_channels=INNER, sigmas=(0.1,) * JOINTS),
    features=Features("resnet", depth=18, fpn=True, channels=CHANNELS),
    proposing=Proposing(
        channels=CHANNELS,
        sizes=((8.0,), (16.0,), (24.0,), (32.0,), (48.0,)),
        test_before=100,
        test_after=60,
        smallest=0.0,
    ),
    classifying=Classifying("align", canonical=28.0, hidden=HIDDEN, dropout=0.0),
    detection=Detection(score_threshold=0.05, iou_threshold=0.5),
)


def greedy(boxes, scores, threshold):
    """What torchvision's compiled operator does, which not every installation has."""
    import torch
    from torchvision.ops import box_iou

    order, overlaps = scores.argsort(descending=True, stable=True).tolist(), box_iou(boxes, boxes)
    kept = []
    for index in order:
        if all(overlaps[index, other] <= threshold for other in kept):
            kept.append(index)
    return torch.tensor(kept, dtype=torch.long)


def build(torch, torchvision, recipe):
    """Torchvision's model with our anchors, which its own are not, being rounded and half a cell further."""
    from torchvision.models.detection import FasterRCNN
    from torchvision.models.detection.anchor_utils import AnchorGenerator
    from torchvision.models.detection.backbone_utils import BackboneWithFPN
    from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
    from torchvision.models.detection.keypoint_rcnn import KeypointRCNNHeads, KeypointRCNNPredictor
    from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
    from torchvision.models.detection.rpn import RPNHead
    from torchvision.ops import MultiScaleRoIAlign

    class Anchors(AnchorGenerator):
        def forward(self, images, maps):
            levels = [jnp.zeros((1, *x.shape[2:], 1)) for x in maps]
            laid = np.concatenate(recipe.lay_anchors(levels))
            return [torch.tensor(laid)] * len(images.image_sizes)

        def num_anchors_per_location(self):
            return [3] * 5

    body = torchvision.models.resnet18(weights=None)
    layers = {f"layer{i}": str(i - 1) for i in range(1, 5)}
    backbone = BackboneWithFPN(body, layers, [64, 128, 256, 512], CHANNELS)
    model = FasterRCNN(
        backbone,
        min_size=SIZE,
        max_size=SIZE,
        rpn_anchor_generator=Anchors(),
        rpn_head=RPNHead(CHANNELS, 3),
        rpn_pre_nms_top_n_test=100,
        rpn_post_nms_top_n_test=60,
        box_roi_pool=MultiScaleRoIAlign(["0", "1", "2", "3"], 7, 2, canonical_scale=28),
        box_head=TwoMLPHead(CHANNELS * 49, HIDDEN),
        box_predictor=FastRCNNPredictor(HIDDEN, CLASSES + 1),
    )
    # Its classes have one branch each, and what calls them has both.
    heads = model.roi_heads
    heads.mask_roi_pool = heads.keypoint_roi_pool = MultiScaleRoIAlign(["0", "1", "2", "3"], 14, 2, canonical_scale=28)
    heads.mask_head, heads.keypoint_head = MaskRCNNHeads(CHANNELS, INNER, 1), KeypointRCNNHeads(CHANNELS, INNER)
    heads.mask_predictor = MaskRCNNPredictor(INNER[-1], INNER[-1], CLASSES + 1)
    heads.keypoint_predictor = KeypointRCNNPredictor(INNER[-1], JOINTS)
    model.transform.postprocess = lambda found, *sizes: found  # which would paste the masks
    return model.eval()


def convert(tensors, shapes):
    """Torchvision's arrays as our networks."""
    body = {n.removeprefix("backbone.body."): x for n, x in tensors.items() if n.startswith("backbone.body.")}
    found = {"resnet": networks.convert(body, shapes["resnet"])}

    def conv(name):
        return {"kernel": tensors[f"{name}.weight"].transpose(2, 3, 1, 0), "bias": tensors[f"{name}.bias"]}

    def dense(name):
        return {"kernel": tensors[f"{name}.weight"].T, "bias": tensors[f"{name}.bias"]}

    fpn = {f"lateral_{i + 2}": conv(f"backbone.fpn.inner_blocks.{i}.0") for i in range(4)}
    fpn |= {f"smooth_{i + 2}": conv(f"backbone.fpn.layer_blocks.{i}.0") for i in range(4)}
    found["fpn"] = {"params": fpn}
    head = "rpn.head."
    parts = {"conv": conv(f"{head}conv.0.0"), "logits": conv(f"{head}cls_logits"), "offsets": conv(f"{head}bbox_pred")}
    found["rpn"] = {"params": parts}
    heads = {f"hidden_{i - 5}": dense(f"roi_heads.box_head.fc{i}") for i in (6, 7)}
    kernel = heads["hidden_1"]["kernel"].reshape(CHANNELS, 7, 7, HIDDEN)  # theirs are channels first
    heads["hidden_1"]["kernel"] = kernel.transpose(1, 2, 0, 3).reshape(-1, HIDDEN)
    heads["logits"] = dense("roi_heads.box_predictor.cls_score")
    offsets = dense("roi_heads.box_predictor.bbox_pred")
    heads["offsets"] = {name: array[..., 4:] for name, array in offsets.items()}  # the background has some, too
    found["head"] = {"params": heads}

    def transposed(name):
        return {"kernel": tensors[f"{name}.weight"].transpose(2, 3, 0, 1), "bias": tensors[f"{name}.bias"]}

    branch, last = {f"conv_{i}": conv(f"roi_heads.mask_head.{i}.0") for i in range(2)}, "roi_heads.mask_predictor."
    logits = {name: array[..., 1:] for name, array in conv(f"{last}mask_fcn_logits").items()}
    found["mask_head"] = {"params": {**branch, "up": transposed(f"{last}conv5_mask"), "logits": logits}}
    branch = {f"conv_{i}": conv(f"roi_heads.keypoint_head.{2 * i}") for i in range(2)}
    up = transposed("roi_heads.keypoint_predictor.kps_score_lowres")
    found["keypoint_head"] = {"params": {**branch, "up": up}}
    return jax.tree.map(jnp.asarray, found)


@pytest.mark.parity
def test_detections_masks_and_joints_are_torchvisions(torchvision, monkeypatch):
    import torch
    import torchvision.ops.boxes

    monkeypatch.setattr(torch, "compile", lambda function, **options: function)
    monkeypatch.setattr(torchvision.ops.boxes, "nms", greedy)
    recipe = mask_rcnn.recipe(**RECIPE)
    detector = recipe.train_step.__self__
    torch.manual_seed(0)
    model = build(torch, torchvision, detector)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.startswith(("rpn", "roi_heads", "backbone.fpn")) and name.endswith("weight"):
                parameter.normal_(0, (0.1 if name.endswith("bbox_pred.weight") else 1) / parameter[0].numel() ** 0.5)
        images = torch.rand(2, 3, SIZE, SIZE)
        theirs = model([*images])
    batch = {"image": jnp.asarray(images.permute(0, 2, 3, 1).numpy())}
    trained = {"masks": np.zeros((2, 1, SIZE, SIZE), bool), "keypoints": np.zeros((2, 1, JOINTS, 2), np.float32)}
    trained |= {"boxes": np.zeros((2, 1, 4), np.float32), "visibility": np.zeros((2, 1, JOINTS), np.int32)}
    shapes = jax.eval_shape(recipe.init, jax.random.key(0), batch | trained)
    shapes = {name: {"params": shapes.params[name], "batch_stats": shapes.stats.get(name)} for name in shapes.params}
    found = convert({name: x.numpy() for name, x in model.state_dict().items()}, shapes)
    expected = jax.tree.map(lambda x: x.shape, {name: shapes[name]["params"] for name in shapes})
    assert jax.tree.map(lambda x: x.shape, {name: found[name]["params"] for name in found}) == expected
    ours = jax.device_get(jax.jit(recipe.eval_step)(start(found, {}), batch, jax.random.key(0)))
    for image, their in enumerate(theirs):
        count = len(their["scores"])
        assert ours["detected"][image].sum() == count and count > 10
        np.testing.assert_array_equal(ours["labels"][image][:count], their["labels"].numpy() - 1)
        # Float32 through twenty layers, and pixels through exp.
        np.testing.assert_allclose(ours["scores"][image][:count], their["scores"], atol=1e-4)
        np.testing.assert_allclose(ours["boxes"][image][:count], their["boxes"], atol=1e-2)
        np.testing.assert_allclose(ours["masks"][image][:count], their["masks"][:, 0], atol=1e-3)
        joints = ours["keypoints"][image][:count]
        # Where two pixels are all but equally high, rounding decides.
        assert (np.abs(joints[..., :2] - their["keypoints"].numpy()[..., :2]) < 0.05).all(-1).mean() > 0.97
        assert ((joints[..., 2] > 0) & (joints[..., 2] < 1)).all()
        assert their["masks"].std() > 0.05 and not ours["masks"][image][count:].any()
    assert len({*np.concatenate([their["labels"] for their in theirs]).tolist()}) > 2
