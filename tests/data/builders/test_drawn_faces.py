"""Drawn faces: pictures, landmarks and regions agree; each parameter changes what it should and nothing else."""

import itertools

import cv2
import numpy as np
import pytest
from scipy import spatial

from cvjax import data
from cvjax.data.builders import DrawnFaces, drawn_faces, photos
from cvjax.data.builders.drawn_faces import EXCHANGE, REGIONS, Faces, draw, sample_identities, sample_views
from cvjax.data.builders.drawn_faces.parameters import IDENTITY, PHOTOGRAPHS, WIDTHS
from cvjax.errors import UserError

JAW, BROWS, NOSE, EYES, MOUTH = (*range(17),), range(17, 27), range(27, 36), (*range(36, 48), 68, 69), range(48, 68)
TURN = np.radians(15)


@pytest.fixture(scope="module")
def people():
    """Eight people without what could hide anything, such as hair in the face."""
    return sample_identities(0, 8).edited(length=0.1, fringe=0.0, recession=0.0, age=30)


@pytest.fixture(scope="module")
def frontal(people):
    return draw(people, 128)


@pytest.fixture(scope="module")
def records():
    return {split: list(DrawnFaces.prepared("smoke").as_data_source(split)) for split in DrawnFaces.splits}


def near(regions, name, pixels=1):
    """Where a region is at most some pixels away."""
    mask = (regions == REGIONS.index(name)).astype(np.uint8)
    return cv2.dilate(mask, np.ones((2 * pixels + 1,) * 2, np.uint8)) > 0


def at(mask, points):
    columns, rows = np.clip(np.floor(points).astype(int), 0, len(mask) - 1).T
    return mask[rows, columns]


def test_the_first_people_and_their_pictures_are_the_same_for_any_number():
    few, many = sample_identities(3, 2), sample_identities(3, 5)
    for name in WIDTHS:
        np.testing.assert_array_equal(getattr(few, name), getattr(many[:2], name))
    views = sample_views(4, many)
    together, alone = draw(views, 32), draw(views[3:4], 32)
    for several, one in zip(together, alone, strict=True):
        np.testing.assert_array_equal(several[3:4], one)
    assert not np.array_equal(sample_identities(4, 2).identity, few.identity)


def test_landmarks_lie_in_their_regions(frontal):
    _, landmarks, regions = frontal
    for points, numbers in zip(landmarks, regions, strict=True):
        for name, part in (("eyes", EYES), ("brows", BROWS), ("mouth", MOUTH), ("nose", NOSE)):
            assert at(near(numbers, name), points[list(part)]).all(), name
        assert at(near(numbers, "eyes", 0), points[68:]).all()
        assert at(near(numbers, "skin", 4) | near(numbers, "hair"), points[list(JAW)]).all()
        assert at(~near(numbers, "background", 0), points[list(JAW)][3:-3]).all()


def test_landmarks_are_in_the_order_of_the_68(frontal):
    points = frontal[1].mean(0)
    assert (np.diff(points[:17, 0]) > 0).all() and points[:17, 1].argmax() == 8
    assert (np.diff(points[17:27, 0]) > 0).all() and (np.diff(points[27:31, 1]) > 0).all()
    assert (np.diff(points[31:36, 0]) > 0).all()
    for first in (36, 42):  # clockwise from the picture's left corner
        corners = points[first : first + 6]
        assert corners[:, 0].argmin() == 0 and corners[:, 0].argmax() == 3
        assert corners[1:3, 1].max() < corners[[0, 3], 1].min() and corners[4:, 1].min() > corners[[0, 3], 1].max()
        assert corners[1, 0] < corners[2, 0] and corners[4, 0] > corners[5, 0]
    assert points[48:60, 0].argmin() == 0 and points[48:60, 0].argmax() == 6 and points[57, 1] > points[51, 1]
    assert points[68, 0] < points[69, 0]


def test_every_pixel_has_a_region_and_all_regions_are_there(frontal):
    regions = frontal[2]
    shares = np.bincount(regions.ravel(), minlength=len(REGIONS)) / regions.size
    assert len(shares) == len(REGIONS) and (shares > 0.002).all()
    assert shares[0] < 0.8 and shares[REGIONS.index("skin")] > 0.1


def test_pictures_of_a_plain_background_differ_from_it_where_the_face_is(frontal):
    images, _, regions = frontal
    background = cv2.erode((regions[0] == 0).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
    top = background[:64]
    assert (images[0][:64][top] == 153).all()
    assert (np.abs(images[0][:64][regions[0][:64] > 0].astype(int) - 153).max(-1) > 8).mean() > 0.9


def test_a_head_moves_as_its_pose_says(people):
    straight, right, up, rolled = (
        draw(people.edited(pose=pose), 64)[1] for pose in ((0, 0, 0), (TURN, 0, 0), (0, TURN, 0), (0, 0, TURN))
    )

    def tip(points):  # of the nose, from the middle between the pupils
        return points[:, 30] - points[:, 68:].mean(1)

    assert ((tip(right) - tip(straight))[:, 0] > 1.5).all() and ((tip(up) - tip(straight))[:, 1] < -1).all()
    middle = np.array([32, 32 + 64 * 0.02])
    turn = np.array([[np.cos(TURN), np.sin(TURN)], [-np.sin(TURN), np.cos(TURN)]])
    np.testing.assert_allclose(rolled, (straight - middle) @ turn + middle, atol=1e-3)  # clockwise


def test_the_mirror_image_of_a_pose_exchanges_landmarks(people):
    pose = np.array([TURN, 0.1, 0.2])
    one, other = (draw(people.edited(pose=pose * sign, gaze_x=sign[0]), 64)[1] for sign in ((1, 1, 1), (-1, 1, -1)))
    order = np.arange(70)
    for pair in EXCHANGE:
        order[list(pair)] = pair[::-1]
    mirrored = np.array([64, 0]) + other[:, order] * np.array([-1, 1])
    np.testing.assert_allclose(one, mirrored, atol=1e-3)
    assert sorted(np.flatnonzero(order == np.arange(70))) == [8, 27, 28, 29, 30, 33, 51, 57, 62, 66]


def test_age_leaves_the_bones_and_changes_the_picture(people, frontal):
    images, landmarks, _ = frontal
    old, aged, _ = draw(people.edited(age=75), 128)
    np.testing.assert_array_equal(people.edited(age=75).identity, people.identity)
    bones = [*NOSE, 36, 39, 42, 45, 68, 69, 8]
    np.testing.assert_allclose(aged[:, bones], landmarks[:, bones], atol=1e-3)
    assert 0.3 < np.abs(aged - landmarks).max() < 0.03 * 128  # lids and cheeks hang
    assert (np.abs(old.astype(int) - images).mean((1, 2, 3)) > 1).all()


@pytest.mark.parametrize(
    ("change", "moving"),
    [
        (dict(smile=1.0), (*MOUTH, *NOSE)),  # which widens
        (dict(open=1.0), (*JAW, *MOUTH)),
        (dict(brows=1.0), BROWS),
        (dict(squint=0.8), EYES),
        (dict(gaze_x=1.0), (68, 69)),
        (dict(glasses=1.0), ()),
        (dict(azimuth=-1.0, tint=(0.9, 1.0, 1.1)), ()),
        (dict(side=0.5), ()),
    ],
)
def test_an_edit_changes_only_what_it_names(people, frontal, change, moving):
    images, landmarks, regions = frontal
    changed, moved, others = draw(people.edited(**change), 128)
    assert (np.abs(changed.astype(int) - images).max((1, 2, 3)) > 8).all()
    distances = np.abs(moved - landmarks).max((0, 2))
    still = [point for point in range(70) if point not in moving]
    assert distances[still].max() < 1e-3
    if moving:
        assert distances[list(moving)].max() > 1
    else:
        np.testing.assert_array_equal(others, regions)


def test_a_beard_is_hair_and_grows_for_those_who_have_one(people):
    style = np.arange(8)[:, None] % 5
    shaven, grown = (draw(people.edited(beard_style=style, beard=length), 64) for length in (0.0, 1.0))
    more = (grown[2] == REGIONS.index("hair")).sum((1, 2)) - (shaven[2] == REGIONS.index("hair")).sum((1, 2))
    assert (more[style[:, 0] >= 2] > 10).all() and (more[style[:, 0] < 2] == 0).all()
    np.testing.assert_array_equal(grown[1], shaven[1])
    same = (grown[0] == shaven[0]).all((1, 2, 3))
    np.testing.assert_array_equal(same, style[:, 0] == 0)


def test_nobody_is_in_two_splits_and_the_test_split_has_photographs_of_its_own(records):
    labels = {split: {record["label"] for record in rows} for split, rows in records.items()}
    assert [len(labels[split]) for split in DrawnFaces.splits] == [16, 2, 2]
    assert len(set.union(*labels.values())) == 20
    behind = {split: {PHOTOGRAPHS[int(r["scene"][-5])] for r in rows} for split, rows in records.items()}
    assert behind["train"] | behind["validation"] <= set(photos.TRAIN) and behind["test"] <= set(photos.TEST)
    config = DrawnFaces.find_variant("64")
    assert [len(people) for people in config.members().values()] == [1600, 200, 200]


def test_examples_hold_all_that_their_picture_was_drawn_from(records):
    for rows in records.values():
        faces = Faces(**{name: np.stack([record[name] for record in rows]) for name in WIDTHS})
        images, landmarks, regions = draw(faces, 32)
        np.testing.assert_array_equal(images, [record["image"] for record in rows])
        np.testing.assert_array_equal(landmarks, [record["landmarks"] for record in rows])
        np.testing.assert_array_equal(regions[..., None], [record["regions"] for record in rows])


def test_a_persons_views_share_an_identity_and_nothing_else(records):
    rows = [record for split in records.values() for record in split]
    for one, other in itertools.pairwise(rows):
        same = one["label"] == other["label"]
        assert np.array_equal(one["identity"], other["identity"]) == same
        assert not any(np.array_equal(one[name], other[name]) for name in ("pose", "expression", "scene", "image"))


def test_parameters_are_in_their_ranges():
    faces = sample_views(1, sample_identities(2, 500))
    for name in WIDTHS:
        assert np.isfinite(getattr(faces, name)).all() and getattr(faces, name).dtype == np.float32
    colours = [faces.trait(name) for name in ("skin", "hair_colour", "eye_colour", "frame_colour", "clothes")]
    assert all((colour >= 0).all() and (colour <= 1).all() for colour in colours)
    shape = faces.identity[:, : IDENTITY["neck_width"].stop]
    assert np.abs(shape).max() <= 1 and shape.std(0).min() > 0.5
    assert (faces.age >= 18).all() and (faces.age <= 80).all() and np.abs(faces.pose[:, 0]).max() < np.radians(36)


def test_pixels_do_not_tell_who_it_is():
    faces = sample_views(5, sample_identities(6, 30)[np.repeat(np.arange(30), 6)])
    images = draw(faces, 32)[0].reshape(180, -1) / 255
    distances = spatial.distance.cdist(images, images)
    people, others = np.repeat(np.arange(30), 6), ~np.eye(180, dtype=bool)
    same = people[:, None] == people
    thresholds = np.quantile(distances[others], np.linspace(0, 1, 50))
    hits = [((distances[same & others] < t).mean() + (distances[~same] >= t).mean()) / 2 for t in thresholds]
    assert max(hits) < 0.75


def test_landmarks_and_regions_move_with_the_image():
    chosen = dict(name="drawn_faces/smoke", batch=8, points=dict(feature="landmarks", exchange=EXCHANGE))
    chosen |= dict(class_maps={"class_map": "regions"}, eval_split="validation")
    transforms = (dict(op="flip", p=1.0), dict(op="center_crop", size=(28, 28)))
    plain, moved = (next(data.load({**chosen, "transforms": chain}, seed=0).train()) for chain in ((), transforms))
    np.testing.assert_array_equal(moved["class_map"], plain["class_map"][:, 2:-2, ::-1][:, :, 2:-2])
    middle = slice(36, 48)
    np.testing.assert_allclose(moved["points"][:, 36, 0], 30 - plain["points"][:, 45, 0], atol=1e-4)
    assert (moved["points"][:, 68, 0] < moved["points"][:, 69, 0]).all() and moved["visible"][:, middle].all()


def test_variants_of_any_size_are_found_by_name_and_wrong_ones_refused(tmp_path):
    loaded = data.load(dict(name="drawn_faces/40_6x3", data_dir=str(tmp_path), batch=6, per_class=3), seed=0)
    batch = next(loaded.train())
    assert batch["image"].shape == (6, 40, 40, 3) and loaded.info["examples"] == {"train": 12, "test": 3}
    assert len(set(batch["label"].tolist())) == 2
    for name, fault in (
        ("8_10x4", "8 pixels; pictures from 32 to 256"),
        ("512_10x4", "512 pixels"),
        ("64_0x4", "0 identities; from 3"),
        ("64_10x1", "1 views; from 2"),
        ("65", "no such variant"),
    ):
        with pytest.raises(UserError, match=fault):
            data.check(dict(name=f"drawn_faces/{name}"))
    with pytest.raises(UserError, match="Did you mean 'validation'"):
        data.check(dict(name="drawn_faces/smoke", eval_split="validatoin"))


def test_faces_that_cannot_be_drawn_are_refused(people):
    with pytest.raises(UserError, match="8 pixels"):
        draw(people, 8)
    with pytest.raises(UserError, match="'smil'"):
        people.edited(smil=1)
    with pytest.raises(UserError, match=r"smile of shape \(3,\) does not fit 8 faces: give one value or an array of"):
        people.edited(smile=[0, 1, 0])
    with pytest.raises(UserError, match=r"pose of shape \(8,\) does not fit 8 faces: give one value, a row of 3 or"):
        people.edited(pose=np.zeros(8))


@pytest.mark.parametrize("name", ["age", "smile", "nose_width", "azimuth"])
def test_an_edit_takes_a_value_for_each_face(people, name):
    values = np.linspace(0.1, 0.8, len(people), dtype=np.float32)
    for given in (values, values[:, None]):
        edited = people.edited(**{name: given})
        found = edited.age if name == "age" else edited.trait(name)
        np.testing.assert_array_equal(found[:, 0], values)
    assert drawn_faces.DrawnFaces is DrawnFaces
