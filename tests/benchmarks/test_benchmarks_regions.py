"""The peer in torchvision has our parameters, contestants do the same work, and all of them run at a tiny size."""

import numpy as np
import pytest

pytestmark = [pytest.mark.slow, pytest.mark.parity]


@pytest.fixture(scope="module")
def regions(torchvision):
    from benchmarks import regions

    return regions


@pytest.fixture(scope="module")
def operators(torchvision):
    """torchvision's compiled operators, without which its regions cannot be timed."""
    import torch

    if not hasattr(torch.ops.torchvision, "roi_align"):
        pytest.skip("torchvision's operators are for another build of torch")


def test_torchvisions_detector_has_our_parameters(regions):
    from benchmarks import torch_regions
    from benchmarks.detectors import parameters
    from benchmarks.steps import experiment

    config = experiment(regions.NAME, {})
    net = torch_regions.faster_rcnn(config["recipe"])
    theirs = sum(leaf.numel() for leaf in net.parameters())
    # torchvision's last layer has offsets for the background too, which it never uses.
    unused = 4 * (config["recipe"]["classifying"]["hidden"] + 1)
    assert theirs - unused == parameters(config)


def test_objects_are_torchvisions(regions):
    import torch

    from benchmarks import torch_regions

    batch = {"boxes": torch.zeros(2, 3, 4), "labels": torch.tensor([[4, 0, 0], [1, 2, 0]])}
    batch |= {"mask": torch.tensor([[True, False, False], [True, True, False]])}
    found = torch_regions.targets(batch)
    assert [rows["labels"].tolist() for rows in found] == [[5], [2, 3]]
    assert [rows["boxes"].shape for rows in found] == [(1, 4), (2, 4)]


def test_region_features_agree_before_they_are_timed(regions, operators):
    regions.check_align()


def test_all_rows_run(regions, operators, monkeypatch):
    ran = []

    def interleave(makers, rounds):
        for name, make in makers.items():
            work = make()
            work()
            ran.append(name)
        return {name: [float(len(name))] * rounds for name in makers}  # 4 and 6 ms

    monkeypatch.setattr(regions.report, "interleave", interleave)
    lines, missed = regions.table("", 3, True)
    assert len(lines) == 2 + len(ran) // 2 and missed == [] and ran[:2] == ["ours", "theirs"]
    assert all("0.67 (0.67 to 0.67) | 4.00 | 6.00" in line for line in lines[2:])
    monkeypatch.setattr(regions.report, "interleave", lambda makers, rounds: {"ours": [3e3], "theirs": [1.0]})
    _, missed = regions.table("", 1, True)
    assert [title.split()[0] for title in missed] == ["RoIAlign", "faster_rcnn_scenes:", "COCO's"]


def test_the_reader_reads_what_was_written(regions):
    boxes = regions.our_reader(40)()
    assert sum(len(picture.boxes) for picture in boxes.pictures) == 40 and len(boxes.classes) == 80
    read = regions.their_reader(40)()
    assert len(read["annotations"]) == 40 and np.isfinite(read["annotations"][0]["bbox"]).all()
