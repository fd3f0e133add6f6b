"""COCO's figures of masks and joints equal those of pycocotools called directly; and the details that make them so."""

import contextlib
import io

import numpy as np
import pytest
from detection_scenes import in_batches, scenes
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cvjax.errors import UserError
from cvjax.metrics import detection, instance_coco

NAMES = ("a", "b", "c")
SIDES = (150, 170)
SIGMAS = np.array([0.026, 0.035, 0.079, 0.107, 0.3])
# Verdicts are equal; the figures are means of the same float64 numbers, which differ in the order of their sums.
TOLERANCE = 1e-12


def pycocotools_stats(batch, outputs, kind):
    """Its stats, of arrays written as COCO's json by hand."""
    images, annotations, results = [], [], []
    for i in range(len(batch["mask"])):
        images.append({"id": 7 * i + 3, "height": SIDES[0], "width": SIDES[1]})
        for j in np.flatnonzero(batch["mask"][i]):
            x1, y1, x2, y2 = batch["boxes"][i, j].astype(float).tolist()
            annotation = {"id": len(annotations) + 1, "image_id": 7 * i + 3}
            annotation |= {"category_id": int(batch["labels"][i, j]) + 1}
            annotation |= {"iscrowd": int(batch["crowd"][i, j]), "bbox": [x1, y1, x2 - x1, y2 - y1]}
            if kind == "segm":
                runs = rle.encode(np.asfortranarray(batch["masks"][i, j].astype(np.uint8)))
                annotation |= {"segmentation": runs, "area": float(batch.get("area", batch["masks"].sum((2, 3)))[i, j])}
            else:
                seen = batch["visibility"][i, j]
                marks = np.concatenate([batch["keypoints"][i, j].astype(float), seen[:, None]], axis=1)
                annotation |= {"area": float(batch["area"][i, j]), "num_keypoints": int((seen > 0).sum())}
                annotation["keypoints"] = marks.ravel().tolist()
            annotations.append(annotation)
        for j in np.flatnonzero(outputs["detected"][i]):
            result = {"image_id": 7 * i + 3, "category_id": int(outputs["labels"][i, j]) + 1}
            if kind == "segm":
                result["segmentation"] = rle.encode(np.asfortranarray(outputs["masks"][i, j].astype(np.uint8)))
            else:
                result["keypoints"] = outputs["keypoints"][i, j].astype(float).ravel().tolist()
            results.append(result | {"score": float(outputs["scores"][i, j])})
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        categories = [{"id": number, "name": name} for number, name in enumerate(NAMES, start=1)]
        truth.dataset = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), kind)
        if kind == "keypoints":
            evaluation.params.kpt_oks_sigmas = SIGMAS
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


# --- masks --------------------------------------------------------------------------------------------------------


def drawn(boxes, random):
    """An ellipse in each box, of which some pixels are missing where `random` is given."""
    y, x = np.mgrid[: SIDES[0], : SIDES[1]] + 0.5
    x1, y1, x2, y2 = np.moveaxis(boxes, -1, 0)[..., None, None]
    ellipse = ((2 * x - x1 - x2) / np.maximum(x2 - x1, 1)) ** 2 + ((2 * y - y1 - y2) / np.maximum(y2 - y1, 1)) ** 2 <= 1
    return ellipse if random is None else ellipse & (random.uniform(size=SIDES) > 0.1)


def mask_scenes(seed, grid=False):
    batch, outputs = scenes(seed, images=14, objects=6, detections=24, size=220.0, grid=grid)
    random = None if grid else np.random.default_rng(seed)
    batch["masks"], outputs["masks"] = drawn(batch["boxes"], None), drawn(outputs["boxes"], random)
    return batch, outputs


@pytest.mark.parametrize("seed", range(4))
def test_masks_equal_pycocotools(seed):
    """Crowds, annotated areas, equal scores and overlaps, one object twice, empty images, masks beyond the border."""
    batch, outputs = mask_scenes(seed, grid=seed % 2 > 0)
    ours = instance_coco.mask_figures(in_batches(batch, outputs, 4), NAMES)
    theirs = pycocotools_stats(batch, outputs, "segm")
    assert [ours[name] for name in instance_coco.MASK_FIGURES] == pytest.approx(theirs, abs=TOLERANCE)
    assert 0.02 < ours["mask_ap"] < ours["mask_ap50"] < 0.95 and min(theirs) >= 0
    assert ours["mask_ap"] == pytest.approx(np.mean([ours[f"mask_ap/{name}"] for name in NAMES]))


def test_masks_equal_pycocotools_beyond_a_hundred_detections_of_a_class_and_by_the_masks_own_area():
    batch, outputs = scenes(11, images=2, detections=150, classes=1, objects=4)
    batch["masks"], outputs["masks"] = drawn(batch["boxes"], None), drawn(outputs["boxes"], None)
    batch["mask"][:], outputs["detected"][:] = True, True
    del batch["area"]
    ours = instance_coco.mask_figures([(batch, outputs)], NAMES)
    theirs = pycocotools_stats(batch, outputs, "segm")
    assert [ours[name] for name in instance_coco.MASK_FIGURES] == pytest.approx(theirs, abs=TOLERANCE)


def test_masks_are_told_from_boxes():
    """Two triangles that share a box: boxes find both, masks neither of the two that are exchanged."""
    low, high = (np.tri(20, dtype=bool), ~np.tri(20, dtype=bool))
    batch = {"boxes": np.array([[[0, 0, 20, 20]]], np.float32), "labels": np.zeros((1, 1), int)}
    batch |= {"mask": np.ones((1, 1), bool), "masks": low[None, None]}
    outputs = {"boxes": batch["boxes"], "labels": batch["labels"], "detected": batch["mask"]}
    outputs |= {"scores": np.ones((1, 1), np.float32), "masks": high[None, None]}
    assert detection.figures([(batch, outputs)], ["a"])["ap"] == pytest.approx(1)
    assert instance_coco.mask_figures([(batch, outputs)], ["a"])["mask_ap"] == 0
    outputs["masks"] = low[None, None]
    assert instance_coco.mask_figures([(batch, outputs)], ["a"])["mask_ap"] == pytest.approx(1)


def test_a_map_of_numbers_is_as_good_as_masks():
    batch, outputs = mask_scenes(1)
    numbers = np.zeros((len(batch["mask"]), *SIDES), np.int32)
    for slot in range(batch["mask"].shape[1]):
        numbers[batch["masks"][:, slot] & batch["mask"][:, slot, None, None]] = slot + 1
    batch["masks"] = numbers[:, None] == np.arange(1, batch["mask"].shape[1] + 1)[:, None, None]
    by_masks = instance_coco.mask_figures(in_batches(batch, outputs, 4), NAMES)
    batch["instances"] = numbers
    del batch["masks"]
    assert instance_coco.mask_figures(in_batches(batch, outputs, 4), NAMES) == by_masks


def test_probabilities_are_pasted_where_their_boxes_are():
    batch = {"boxes": np.array([[[5, 7, 33, 35]]], np.float32), "labels": np.zeros((1, 1), int)}
    batch |= {"mask": np.ones((1, 1), bool), "masks": np.zeros((1, 1, 50, 40), bool)}
    inner = np.random.default_rng(0).uniform(size=(28, 28)) < 0.5
    batch["masks"][0, 0, 7:35, 5:33] = inner
    outputs = {"boxes": batch["boxes"], "labels": batch["labels"], "detected": batch["mask"]}
    outputs |= {"scores": np.ones((1, 1), np.float32), "masks": inner[None, None].astype(np.float32)}
    assert instance_coco.mask_figures([(batch, outputs)], ["a"])["mask_ap"] == pytest.approx(1)
    outputs["boxes"] = batch["boxes"] + 3
    assert instance_coco.mask_figures([(batch, outputs)], ["a"])["mask_ap"] == 0


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (17, 9)])
def test_a_part_is_encoded_as_the_whole(shape):
    random = np.random.default_rng(0)
    for share in (0, 0.3, 0.8, 1):
        part = random.uniform(size=shape) < share
        for corner in ((0, 0), (4, 2), (25 - shape[0], 11 - shape[1])):  # the last touches the last pixel
            whole = np.zeros((25, 11), bool)
            whole[corner[0] : corner[0] + shape[0], corner[1] : corner[1] + shape[1]] = part
            assert instance_coco.encode_part(part, corner, 25, 11) == instance_coco.encode(whole)


def test_without_objects_or_detections_masks_have_no_figures_or_none_is_found():
    batch, outputs = mask_scenes(0)
    found = {**outputs, "detected": np.zeros_like(outputs["detected"])}
    assert instance_coco.mask_figures(in_batches(batch, found, 5), NAMES)["mask_ap"] == 0
    empty = {**batch, "mask": np.zeros_like(batch["mask"])}
    for rows in (in_batches(empty, outputs, 5), []):
        assert set(instance_coco.mask_figures(rows, NAMES).values()) == {-1.0}


def test_several_measures_watch_one_stream():
    batch, outputs = mask_scenes(2)
    rows = (row for row in in_batches(batch, outputs, 5))  # which cannot be read twice
    tally = instance_coco.MaskTally(NAMES)
    boxes = detection.figures(instance_coco.watch(rows, tally), NAMES)
    assert boxes == detection.figures(in_batches(batch, outputs, 5), NAMES)
    assert tally.figures() == instance_coco.mask_figures(in_batches(batch, outputs, 5), NAMES)


# --- joints -------------------------------------------------------------------------------------------------------


def people(seed, grid=False, classes=1):
    """Joints in boxes, and some far outside; found ones are moved by as much as boxes are. Some are not labelled."""
    batch, outputs = scenes(seed, classes=classes, grid=grid)
    random = np.random.default_rng(seed)
    shares = random.uniform(-0.1, 1.1, (*batch["mask"].shape, len(SIGMAS), 2))

    def inside(boxes, shares):
        corner, size = boxes[..., None, :2], (boxes[..., 2:] - boxes[..., :2])[..., None, :]
        return corner + shares * size

    batch["keypoints"] = inside(batch["boxes"], shares).astype(np.float32)
    batch["visibility"] = random.integers(0, 3, batch["keypoints"].shape[:3]).astype(np.int32)
    batch["visibility"][random.uniform(size=batch["mask"].shape) < 0.3] = 0
    nearest = np.abs(outputs["boxes"][:, :, None] - batch["boxes"][:, None]).sum(-1).argmin(-1)
    guesses = np.take_along_axis(batch["keypoints"], nearest[..., None, None], 1)
    error = random.choice([0, 1, 4, 40], (*nearest.shape, 1, 1)) * random.normal(size=guesses.shape)
    if grid:  # joints are exact or lost, and so are half of a similarity
        error = np.where(random.uniform(size=guesses.shape) < 0.7, 0, 1e5)
    scores = np.ones((*nearest.shape, len(SIGMAS), 1))
    outputs["keypoints"] = np.concatenate([guesses + error, scores], -1).astype(np.float32)
    return batch, outputs


@pytest.mark.parametrize("seed", range(6))
def test_joints_equal_pycocotools(seed):
    """Crowds, people without labelled joints, equal scores, similarities of exactly a half, over 20 detections."""
    batch, outputs = people(seed, grid=seed % 2 > 0, classes=1 + 2 * (seed // 2 % 2))
    ours = instance_coco.keypoint_figures(in_batches(batch, outputs, 5), SIGMAS, NAMES)
    theirs = pycocotools_stats(batch, outputs, "keypoints")
    assert [ours[name] for name in instance_coco.KEYPOINT_FIGURES] == pytest.approx(theirs, abs=TOLERANCE)
    assert 0.02 < ours["keypoint_ap"] < ours["keypoint_ap50"] < 0.95
    counted = batch["mask"] & ~batch["crowd"]
    labelled = (batch["visibility"] > 0).any(-1)
    assert (counted & ~labelled).any() and (counted & labelled).any() and (batch["mask"] & batch["crowd"]).any()


def one_person(visibility, found, area=100.0):
    batch = {"boxes": np.array([[[0, 0, 10, 10]]], np.float32), "labels": np.zeros((1, 1), int)}
    batch |= {"mask": np.ones((1, 1), bool), "keypoints": np.full((1, 1, 2, 2), 5.0, np.float32)}
    batch |= {"visibility": np.array([[visibility]], np.int32), "area": np.array([[area]], np.float32)}
    outputs = {"boxes": batch["boxes"], "labels": batch["labels"], "detected": batch["mask"]}
    outputs |= {"scores": np.ones((1, 1), np.float32), "keypoints": np.array([[found]], np.float32)}
    return instance_coco.keypoint_figures([(batch, outputs)], [0.1, 0.1])


def test_hidden_joints_count_and_unlabelled_ones_do_not():
    lost = [[5, 5], [500, 500]]
    assert one_person([2, 0], lost)["keypoint_ap"] == pytest.approx(1)
    assert one_person([2, 1], lost)["keypoint_ap"] == pytest.approx(0.1)  # half of the joints: at the first threshold


def test_who_has_no_labelled_joints_is_neither_missed_nor_found():
    assert set(one_person([0, 0], [[5, 5], [5, 5]]).values()) == {-1.0}


def test_a_joint_counts_by_its_distance_over_the_size_of_the_person():
    similar = np.exp(-0.5)  # two joints one deviation away: 2 sigma times the square root of the area
    found = one_person([2, 2], [[5 + 2, 5], [5, 5 - 2]])
    assert found["keypoint_ar"] == pytest.approx(np.mean(similar >= np.linspace(0.5, 0.95, 10)))
    assert one_person([2, 2], [[5 + 2, 5], [5, 5 - 2]], area=25.0)["keypoint_ar"] == 0


def test_another_number_of_joints_is_named():
    batch, outputs = people(0)
    with pytest.raises(UserError, match=r"batch have 5 joints an object, and there are 17 sigmas"):
        instance_coco.keypoint_figures([(batch, outputs)], np.ones(17))
    outputs["keypoints"] = outputs["keypoints"][:, :, :4]
    with pytest.raises(UserError, match=r"outputs have 4 joints an object, and there are 5 sigmas"):
        instance_coco.keypoint_figures([(batch, outputs)], SIGMAS)
