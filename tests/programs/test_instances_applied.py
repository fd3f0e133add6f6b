"""Masks and joints of a detector, brought back to the user's image: drawn, filmed, and in COCO's format."""

import json

import cv2
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from cvjax.core import Recipe, State
from cvjax.data import people
from cvjax.ops.drawing import colour
from cvjax.programs import apply

HEIGHT, WIDTH = 120, 200  # of the user's image; the network's has 64 x 64
DISC = {"centre": (120, 70), "radius": 30}
EXACT = np.hypot(*(np.mgrid[:HEIGHT, :WIDTH] + 0.5 - np.array(DISC["centre"])[::-1, None, None])) <= DISC["radius"]


def made(size=28, joints=17, **more):
    """A "network" that knows where the disc is in its own letterboxed image, and a second, worse detection."""

    def predict(state, inputs, key):
        scale, shift = np.array([64 / WIDTH, 38 / HEIGHT]), np.array([0, 13])  # 38 rows of 64
        centre, radius = np.array(DISC["centre"]) * scale + shift, DISC["radius"] * scale
        boxes = np.float32([[*(centre - radius), *(centre + radius)], [0, 0, 30, 30], [1, 1, 2, 2]])
        y, x = (np.mgrid[:size, :size] + 0.5) / size - 0.5
        disc = np.clip((0.5 - np.hypot(x, y)) * size / 2 + 0.5, 0, 1)  # 0.5 at the rim
        places = np.tile(np.append(centre, 3), (3, joints, 1))
        row = {"boxes": boxes, "scores": np.float32([0.9, 0.2, 0]), "labels": np.int32([1, 0, 0])}
        row |= {"detected": np.array([True, True, False]), "masks": np.float32([disc, np.ones_like(disc), disc])}
        row |= {"keypoints": np.float32(places)}
        count = len(inputs["image"])
        return {name: jnp.asarray(np.stack([value] * count)) for name, value in row.items() if name not in more}

    data = {"eval_transforms": [{"op": "letterbox", "size": (64, 64)}], "max_boxes": 4}
    description = {"config": {"data": data, "recipe": {"classes": ["box", "disc"]}}}
    description |= {"batch": {"image": [[4, 64, 64, 3], "float32"]}}
    return apply.Predictor(description, Recipe({}, *[print] * 5, predict=predict), State(jnp.int32(0), {}, {}), batch=2)


@pytest.fixture
def picture(tmp_path):
    Image.fromarray(np.full((HEIGHT, WIDTH, 3), 60, np.uint8)).save(tmp_path / "a.png")
    return tmp_path / "a.png"


@pytest.fixture
def written(picture, tmp_path):
    apply.apply_to_images(made(), picture, tmp_path / "out")
    return tmp_path / "out"


def overlap(one, other):
    return (one & other).sum() / (one | other).sum()


def test_masks_have_the_size_of_the_users_image_and_their_own_area(written):
    coco = COCO(written / "detections.json")
    first, second = coco.loadAnns([1, 2])
    mask = coco.annToMask(first).astype(bool)
    # The mask's bins are 2 pixels, and a disc's rim is within a fraction of one. At the network's size it were .9.
    assert mask.shape == EXACT.shape and overlap(mask, EXACT) > 0.97
    assert first["area"] == mask.sum() and first["category_id"] == 2
    # A mask that fills its box ends half a bin beyond it, and at the picture's border: the letterbox's margin is none.
    rows, columns = np.nonzero(coco.annToMask(second))
    assert (rows.min(), columns.min()) == (0, 0) and second["bbox"][1] == 0
    edge = (30 - 13) * HEIGHT / 38
    assert abs(rows.max() - edge) < 4


def test_pycocotools_evaluates_what_was_written_as_results(written, capsys):
    saved = json.loads((written / "detections.json").read_text())
    truth = COCO()
    runs = rle.encode(np.asfortranarray(EXACT.astype(np.uint8)))
    joints = [*DISC["centre"], 2] * 17
    annotation = {
        "id": 1,
        "image_id": 1,
        "category_id": 2,
        "iscrowd": 0,
        "area": float(EXACT.sum()),
        "bbox": [90, 40, 60, 60],
    }
    annotation |= {"segmentation": runs, "keypoints": joints, "num_keypoints": 17}
    truth.dataset = {**saved, "info": {}, "annotations": [annotation]}
    truth.createIndex()
    for kind in ("bbox", "segm", "keypoints"):
        evaluation = COCOeval(truth, truth.loadRes(json.loads(json.dumps(saved["annotations"]))), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
        assert evaluation.stats[0] == pytest.approx(1), kind
    capsys.readouterr()


def test_joints_are_in_pixels_of_the_users_image_and_named(written):
    coco = COCO(written / "detections.json")
    first = coco.anns[1]
    assert first["num_keypoints"] == 17 and first["keypoint_scores"] == [3] * 17
    middle = [*np.subtract(DISC["centre"], 0.5), 2]  # COCO numbers pixels
    np.testing.assert_allclose(np.reshape(first["keypoints"], (17, 3)), [middle] * 17, atol=2e-3)
    for category in coco.cats.values():
        assert category["keypoints"] == list(people.JOINTS)
        ends = {
            (category["keypoints"][one - 1], category["keypoints"][other - 1]) for one, other in category["skeleton"]
        }
        assert ("left_ankle", "left_knee") in ends and len(ends) == len(people.SKELETON)


def test_joints_of_others_have_numbers_and_no_skeleton(picture, tmp_path):
    apply.apply_to_images(made(joints=3, masks=None), picture, tmp_path / "out")
    (category, _) = json.loads((tmp_path / "out" / "detections.json").read_text())["categories"]
    assert category == {"id": 1, "name": "box", "keypoints": ["1", "2", "3"], "skeleton": []}


def test_masks_and_joints_are_drawn_where_they_are(written, picture):
    drawn = np.asarray(Image.open(written / "a.png"), np.float32) / 255
    scale = len(drawn) // HEIGHT
    ink, grey = np.array(colour(0)), 60 / 255
    inside, outside = np.array([70, 100]) * scale, np.array([100, 60]) * scale
    np.testing.assert_allclose(drawn[tuple(inside)], grey + 0.45 * (ink - grey), atol=2 / 255)
    np.testing.assert_allclose(drawn[tuple(outside)], grey, atol=1 / 255)  # the second scores too little
    np.testing.assert_allclose(drawn[70 * scale, 120 * scale], ink, atol=1 / 255)  # a joint


def test_a_folder_and_a_video_of_them(picture, tmp_path):
    writer = cv2.VideoWriter(str(tmp_path / "in.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 10, (WIDTH, HEIGHT))
    for _ in range(3):
        writer.write(np.full((HEIGHT, WIDTH, 3), 60, np.uint8))
    writer.release()
    apply.apply_to_video(made(), tmp_path / "in.avi", tmp_path / "out.avi")
    capture = cv2.VideoCapture(str(tmp_path / "out.avi"))
    assert capture.get(cv2.CAP_PROP_FRAME_COUNT) == 3
    frame = capture.read()[1][:, :, ::-1] / 255
    scale = len(frame) // HEIGHT
    np.testing.assert_allclose(
        frame[70 * scale, 100 * scale], 60 / 255 + 0.45 * (np.array(colour(0)) - 60 / 255), atol=0.1
    )
    (tmp_path / "in").mkdir()
    for name in ("a.png", "b.png", "c.png"):
        (tmp_path / "in" / name).write_bytes(picture.read_bytes())
    apply.apply_to_images(made(), tmp_path / "in", tmp_path / "all")
    assert len(COCO(tmp_path / "all" / "detections.json").anns) == 6


def test_without_masks_nothing_of_them_is_written(picture, tmp_path):
    apply.apply_to_images(made(masks=None, keypoints=None), picture, tmp_path / "out")
    saved = json.loads((tmp_path / "out" / "detections.json").read_text())
    assert set(saved["annotations"][0]) == {"id", "image_id", "category_id", "bbox", "score", "area", "iscrowd"}
    assert saved["categories"] == [{"id": 1, "name": "box"}, {"id": 2, "name": "disc"}]
