"""The peers in torch compute what ours compute; tables are made of what was timed."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.detection import region, retinanet

pytestmark = pytest.mark.slow

RNG = np.random.default_rng(0)
YOLO = dict(anchors=((1.0, 2.0), (3.0, 3.0), (2.0, 1.0)), shape=(32, 48, 3), loss=dataclasses.asdict(region.DARKNET))


def objects(count=3, most=5, size=(32, 48), classes=4):
    near = RNG.uniform(0, np.array(size[::-1]) * 0.7, (count, most, 2))
    far = np.minimum(near + RNG.uniform(4, 14, near.shape), size[::-1])  # boxes of data end with their image
    boxes = np.concatenate([near, far], axis=-1).astype(np.float32)
    mask = np.arange(most) < RNG.integers(1, most + 1, (count, 1))
    labels = RNG.integers(0, classes, mask.shape).astype(np.int32)
    nothing = np.zeros_like(mask)
    return {"boxes": boxes * mask[..., None], "labels": labels, "mask": mask, "difficult": nothing, "crowd": nothing}


@pytest.fixture
def peers():
    pytest.importorskip("torch")
    from benchmarks import torch_detectors

    return torch_detectors


def tensors(torch, rows):
    return {name: torch.from_numpy(np.array(value)) for name, value in rows.items()}


@pytest.mark.parity
def test_region_loss_equals_ours(peers):
    import torch

    rows = objects()
    outputs = RNG.normal(0, 0.7, (3, 4, 6, 3, 9)).astype(np.float32)
    truth = (jnp.asarray(rows[name]) for name in ("boxes", "labels", "mask"))
    parts, _ = jax.jit(lambda *arrays: region.losses(*arrays, YOLO["anchors"], 8))(jnp.asarray(outputs), *truth)
    found = peers.region_loss(torch.from_numpy(outputs), tensors(torch, rows), YOLO)
    np.testing.assert_allclose(found, sum(parts.values()).mean(), rtol=1e-4)  # float32 sums


@pytest.mark.parity
@pytest.mark.parametrize("alpha", [0.25, None])
def test_focal_loss_equals_ours(peers, alpha):
    import torch

    rows = objects()
    anchors = np.concatenate([near := RNG.uniform(0, 30, (200, 2)), near + RNG.uniform(4, 14, (200, 2))], axis=1)
    anchors = anchors.astype(np.float32)
    logits, deltas = (RNG.normal(0, 1, (3, 200, n)).astype(np.float32) for n in (4, 4))
    arrays = map(jnp.asarray, (logits, deltas, anchors, *(rows[name] for name in ("boxes", "labels", "mask"))))
    parts = jax.jit(lambda *arrays: retinanet.detection_losses(*arrays, alpha=alpha))(*arrays)
    recipe = dict(alpha=alpha, gamma=2.0, beta=1 / 9, force_match=True)
    outputs = torch.from_numpy(logits), torch.from_numpy(deltas)
    found = peers.focal_loss(outputs, tensors(torch, rows), torch.from_numpy(anchors), recipe)
    np.testing.assert_allclose(found, (parts[0] + parts[1]).mean(), rtol=1e-4)


def small(name):
    from benchmarks.steps import experiment

    changes = {"data.name": "digit_scenes/smoke", "data.batch": 4, "recipe.width": 4}
    if name == "yolov2_scenes":
        changes |= {"recipe.stages": (1, 3, 1), "recipe.head": 2}
    if name == "retinanet_scenes":
        changes |= {"recipe.depth": 18, "recipe.channels": 8, "recipe.subnet_depth": 1}
    return experiment(name, changes)


@pytest.mark.parity
@pytest.mark.parametrize("name", ["yolov2_scenes", "retinanet_scenes"])
def test_both_are_timed_on_the_same_networks(peers, name):
    from benchmarks import detectors

    config = small(name)
    net, _ = detectors.torch_loss(config, "cpu")
    assert sum(p.numel() for p in net.parameters()) == detectors.parameters(config)
    apply, variables = detectors.our_network(config)
    images = np.stack([batch["image"] for batch in detectors.batches(config)])[0]
    ours = jax.eval_shape(apply, variables, images)
    theirs = net(detectors.torch_batches(config, "cpu")[0]["image"])
    if name == "yolov2_scenes":
        assert ours.shape == tuple(theirs.shape)
    else:
        assert sum(logits.shape[1] for logits, _ in ours) == theirs[0].shape[1]
    for work in (detectors.torch_step(config), detectors.torch_inference(config), detectors.our_inference(config)):
        work()
    step = detectors.our_step(config, bare=True)
    step()
    step()


@pytest.mark.parity
def test_tables_have_a_line_for_every_detector(peers, monkeypatch, tmp_path):
    from benchmarks import detectors

    monkeypatch.setattr(detectors, "ROOT", tmp_path)
    (tmp_path / "RESULTS.md").write_text(
        "| yolo_scenes | 0 | a | map_voc07 0.85 >= 0.8 | yes |\n| yolo_scenes | 1 | b | map_voc07 0.9 >= 0.8 | yes |\n"
    )
    assert detectors.accuracies("yolo_scenes") == "0.850 to 0.900" and detectors.accuracies("yolo") == ""
    chosen = {"yolo_scenes": small("yolo_scenes"), "windows": small("sliding_window_scenes")}
    monkeypatch.setattr(detectors, "detectors", lambda: chosen)
    monkeypatch.setattr(detectors.report, "interleave", lambda makers, _: {name: [2.0, 4.0] for name in makers})
    yolo, windows = detectors.frame_lines(2)[2:]
    assert yolo.startswith("| yolo_scenes | 0.850 to 0.900 | 64x64 | ") and "| 3.0 | 333 | 5333 |  |" in yolo
    assert f"| {detectors.count_windows(chosen['windows']) * 16e3 / 3:,.0f} |" in windows
    found = detectors.frames("windows", chosen["windows"], 2)
    found()
