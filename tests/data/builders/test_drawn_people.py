"""Drawn people: joints lie on what they are part of, and their visibility, boxes and masks say what is to be seen."""

import numpy as np
import pytest

from cvjax import data
from cvjax.data import people
from cvjax.data.builders import DrawnPeople
from cvjax.data.builders.drawn_people import POSES, Crowd, compose, dataset, sample_figure
from cvjax.data.builders.drawn_people.painting import FINE, NUMBERS, OWNERS, paint, visibility

SIZE = 96
J = {name: place for place, name in enumerate(people.JOINTS)}


def rng(*seed):
    return np.random.default_rng(seed)


def scene(seed, **ranges):
    return compose(rng(1, seed), np.full((SIZE, SIZE, 3), 0.5, np.float32), Crowd(SIZE, **ranges))


@pytest.fixture(scope="module")
def scenes():
    return [scene(seed) for seed in range(60)]


def everybody(scenes):
    return [person for one in scenes for person in one["objects"]]


def test_examples_are_the_same_every_time_and_photographs_are_not_shared(tmp_path):
    settings = dict(name="drawn_people/smoke", batch=32, max_boxes=4, masks="mask", keypoints={}, keep=("instances",))
    first, again = (next(data.load({**settings, "data_dir": where}, seed=0).train()) for where in (None, str(tmp_path)))
    assert first.keys() == again.keys() >= {"keypoints", "visibility", "masks", "instances", "boxes"}
    for key in first:
        np.testing.assert_array_equal(first[key], again[key])
    assert first["keypoints"].shape == (32, 4, 17, 2) and first["masks"].shape == (32, 4, 64, 64)
    present = first["mask"]
    assert set(present.sum(1).tolist()) == {1, 2, 3, 4}
    assert (first["visibility"][present] > 0).sum() > 10 * present.sum() and not first["visibility"][~present].any()
    numbers = (first["masks"] * np.arange(1, 5)[:, None, None]).sum(1)
    np.testing.assert_array_equal(numbers, first["instances"])
    assert not set(dataset.SPLITS["train"]) & set(dataset.SPLITS["test"])
    assert DrawnPeople.of("128").most_boxes == 4


def test_boxes_hold_masks_and_masks_are_apart(scenes):
    for one in scenes:
        assert (np.sum([person["mask"] for person in one["objects"]], axis=0) <= 1).all()
        for number, person in enumerate(one["objects"], 1):
            np.testing.assert_array_equal(person["mask"], one["instances"] == number)
            assert person["area"] == person["mask"].sum() > 0
            rows, columns = np.nonzero(person["mask"])
            left, top, right, bottom = person["box"]
            assert 0 <= left <= columns.min() and columns.max() < right <= SIZE
            assert 0 <= top <= rows.min() and rows.max() < bottom <= SIZE
            if len(one["objects"]) == 1:
                assert (left, top, right, bottom) == (columns.min(), rows.min(), columns.max() + 1, rows.max() + 1)


def test_labelled_joints_are_in_the_box_and_visible_ones_on_the_person(scenes):
    states = []
    for person in everybody(scenes):
        places, seen = person["keypoints"][:, :2], person["keypoints"][:, 2]
        states += seen.tolist()
        assert not places[seen == people.ABSENT].any()
        labelled = places[seen > people.ABSENT]
        left, top, right, bottom = person["box"]
        assert (labelled >= (left - 1.5, top - 1.5)).all() and (labelled <= (right + 1.5, bottom + 1.5)).all()
        for x, y in places[seen == people.VISIBLE]:  # one pixel of the fine canvas beside an edge counts
            column, row = int(x), int(y)
            assert person["mask"][max(0, row - 1) : row + 2, max(0, column - 1) : column + 2].any()
    shares = [states.count(state) / len(states) for state in range(3)]
    assert 0.05 < shares[0] < 0.3 and 0.1 < shares[1] < 0.4 and shares[2] > 0.5


def test_whoever_is_in_front_hides_what_is_below(scenes):
    hidden = 0
    for one in scenes:
        for person in one["objects"]:
            for x, y, seen in person["keypoints"]:
                if seen:
                    row, column = int(y), int(x)
                    window = one["instances"][max(0, row - 1) : row + 2, max(0, column - 1) : column + 2]
                    if not (window == one["instances"][row, column]).all():
                        continue  # at an edge
                    if not person["mask"][row, column]:
                        assert seen == people.HIDDEN
                        hidden += 1
    assert hidden > 40


def test_joints_are_where_their_parts_meet():
    """Alone and from the front with the arms out, nearly all joints are seen, on the parts that they belong to."""
    seen = np.zeros(len(people.JOINTS))
    for seed in range(20):
        painted = paint(sample_figure(rng(2, seed), "star", yaw=0.0), float(SIZE))
        columns, rows = np.floor(painted.joints * FINE).astype(int).T
        for joint, name in enumerate(people.JOINTS):
            seen[joint] += painted.parts[rows[joint], columns[joint]] in [NUMBERS[part] for part in OWNERS[name]]
    assert (seen[5:] >= 19).all() and (seen[:3] >= 18).all()


@pytest.mark.parametrize("pose", POSES)
def test_left_and_right_are_the_persons_own(pose):
    for seed in range(5):
        front, back = (paint(sample_figure(rng(3, seed), pose, yaw=yaw), float(SIZE)) for yaw in (0.0, np.pi))
        for left in ("left_shoulder", "left_hip"):
            right = left.replace("left", "right")
            assert front.joints[J[left], 0] > front.joints[J[right], 0]
            assert back.joints[J[left], 0] < back.joints[J[right], 0]
    upright = [sample_figure(rng(4, seed), "stand", yaw=0.0) for seed in range(5)]
    assert all(figure.points["left_eye"][0] > figure.points["right_eye"][0] for figure in upright)
    assert all(figure.points["nose"][1] > figure.points["left_hip"][1] for figure in upright)  # y is up


def _seen(figure):
    """The visibility of a person's joints where nobody else is."""
    painted = paint(figure, float(SIZE))
    return visibility(painted.joints, painted.turned, painted.parts)


def test_a_face_is_seen_from_the_front_and_not_from_behind():
    face = [J["nose"], J["left_eye"], J["right_eye"]]
    for seed in range(10):
        front, back = (_seen(sample_figure(rng(5, seed), "bent", yaw=yaw)) for yaw in (0.0, np.pi))
        assert (front[face] == people.VISIBLE).sum() >= 2
        assert (back[face] == people.HIDDEN).all()


def test_of_a_person_who_goes_to_the_right_the_right_shoulder_is_nearer():
    seen = np.stack([_seen(sample_figure(rng(6, seed), "walk", yaw=np.pi / 2)) for seed in range(10)])
    assert (seen[:, J["left_shoulder"]] == people.HIDDEN).all()
    assert (seen[:, J["right_shoulder"]] == people.VISIBLE).sum() >= 8  # an arm or hair may be in front


def test_joints_bend_as_peoples_do():
    for seed in range(200):
        figure = sample_figure(rng(7, seed))
        points = figure.points
        for side in ("left", "right"):
            lengths = [("shoulder", "elbow", "upper_arm"), ("elbow", "wrist", "forearm")]
            lengths += [("hip", "knee", "thigh"), ("knee", "ankle", "shin")]
            for start, end, bone in lengths:
                across = np.linalg.norm(points[f"{side}_{end}"] - points[f"{side}_{start}"])
                assert abs(across - figure.size[bone]) < 1e-9
            thigh = points[f"{side}_knee"] - points[f"{side}_hip"]
            shin = points[f"{side}_ankle"] - points[f"{side}_knee"]
            foot = points[f"{side}_toes"] - points[f"{side}_ankle"]
            # From thigh to shin a leg turns the other way than from shin to foot: knees bend to the back.
            assert np.cross(thigh, shin) @ np.cross(shin, foot) < 1e-9


def test_all_poses_and_sizes_of_crowds_are_drawn(scenes):
    assert {person["pose"] for person in everybody(scenes)} == set(POSES)
    assert {len(one["objects"]) for one in scenes} == {1, 2, 3, 4}
    alone = [scene(seed, most=1) for seed in range(3)]
    assert all(len(one["objects"]) == 1 for one in alone)
    for one in alone:
        outside = ~one["objects"][0]["mask"]
        assert (one["image"][outside] == 128).mean() > 0.85  # the background stays but at soft edges
        assert (one["image"][~outside] != 128).any(-1).mean() > 0.95
