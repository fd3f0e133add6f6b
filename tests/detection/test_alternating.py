"""Alternating training: what each run trains, whose features proposals are made of, and the recall of proposals."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state

from cvjax import config
from cvjax.core import start, variables
from cvjax.detection import alternating, faster_rcnn
from cvjax.detection.detector import Detection
from cvjax.detection.rpn import Proposing

SHAPE, CLASSES = (32, 32, 3), 3
SMALL = dict(
    shape=SHAPE,
    classes=CLASSES,
    features=faster_rcnn.Features("resnet", depth=18, width=4, stem="small", strides=(2, 2)),
    proposing=Proposing(8, ((6.0, 10.0),), (1.0,), 32, 60, 20, 60, 20, smallest=3.0),
    classifying=faster_rcnn.Classifying("align", pooled=3, hidden=16, dropout=0.0, count=16),
    detection=Detection(score_threshold=0.0, max_detections=20),
    optimiser={"name": "sgd", "learning_rate": 1e-2},
)
TRAINED = {1: {"resnet", "rpn"}, 2: {"resnet", "head"}, 3: {"rpn"}, 4: {"head"}}
FROZEN = {1: set(), 2: {"proposer_resnet", "rpn"}, 3: {"resnet"}, 4: {"resnet", "rpn"}}


def make_batch(count=2):
    images = np.random.default_rng(0).uniform(size=(count, *SHAPE)).astype(np.float32)
    boxes = np.tile(np.array([[4, 4, 14, 16], [18, 10, 27, 20], [0, 0, 0, 0]], np.float32), (count, 1, 1))
    mask = np.tile([True, True, False], (count, 1))
    batch = dict(image=images, boxes=boxes, labels=np.tile([2, 0, 0], (count, 1)), mask=mask)
    return jax.tree.map(jnp.asarray, batch | {"difficult": ~mask & mask, "crowd": ~mask & mask})


def make(step):
    recipe = alternating.recipe(**SMALL, step=step)
    return recipe, draw_state(recipe, make_batch(), deviation=lambda names, shape: 0.2)


@pytest.mark.parametrize("step", TRAINED)
def test_each_run_trains_its_networks_and_leaves_the_others(step):
    recipe, state = make(step)
    assert {*state.params} == TRAINED[step] and {*state.frozen} == FROZEN[step]
    after, metrics = jax.jit(recipe.train_step)(state, make_batch(), jax.random.key(0))
    moved = jax.tree.map(lambda a, b: bool((a != b).any()), after.params, state.params)
    assert all(any(jax.tree.leaves(moved[name])) for name in moved)
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: bool((a == b).all()), after.frozen, state.frozen)))
    names = {"loss/objectness", "loss/proposals"} if step in (1, 3) else {"loss/classification", "loss/boxes"}
    assert names < {*metrics} and np.isfinite([*metrics.values()]).all()
    if step in (3, 4):  # nor do batch statistics move
        assert not after.stats


def test_the_second_run_proposes_by_the_features_of_the_first():
    recipe, state = make(2)
    detector, images = recipe.eval_step.__self__, make_batch()["image"]

    def proposals(state):
        def apply(name, x):
            return detector.call(state, name, x)

        return detector.propose(apply, detector.maps(apply, images), images).boxes

    shifted = jax.tree.map(lambda x: x * 1.5 + 0.05, state.frozen["proposer_resnet"]["params"])
    others = {"params": shifted, "batch_stats": state.frozen["proposer_resnet"]["batch_stats"]}
    own = state.replace(params={**state.params, "resnet": shifted})
    np.testing.assert_array_equal(proposals(own), proposals(state))
    assert (proposals(state.replace(frozen={**state.frozen, "proposer_resnet": others})) != proposals(state)).any()


def test_the_fourth_run_is_faster_rcnn():
    recipe, state = make(4)
    joint = faster_rcnn.recipe(**SMALL)
    held = {name: variables(state, name) for name in ("resnet", "rpn", "head")}
    ours, theirs = (
        jax.jit(which.eval_step)(given, make_batch(), jax.random.key(0))
        for which, given in ((recipe, state), (joint, start(held, {})))
    )
    assert ours["detected"].all()
    for name in ours:
        np.testing.assert_allclose(ours[name], theirs[name], atol=1e-5)  # compiled apart


def test_recall_of_proposals():
    recipe, state = make(1)
    batch = jax.device_get(make_batch())
    perfect = {"boxes": batch["boxes"], "detected": batch["mask"]}
    figures = recipe.score([(batch, perfect)])
    assert figures == {"proposal_recall": 1, "proposal_recall_70": 1, "proposal_average_recall": 1}
    moved = {**perfect, "boxes": batch["boxes"] + np.array([3, 0, 3, 0], np.float32)}  # IoUs of 7 / 13 and 6 / 12
    figures = recipe.score([(batch, moved)])
    assert figures["proposal_recall"] == 1 and figures["proposal_recall_70"] == 0
    assert figures["proposal_average_recall"] == pytest.approx(7 / 13 - 0.5)
    nothing = {**batch, "mask": batch["mask"] & False}
    assert set(recipe.score([(nothing, perfect)]).values()) == {-1.0}
    found = recipe.predict(state, {"image": make_batch()["image"]}, jax.random.key(0))
    assert found["detected"].any() and (np.diff(found["scores"]) <= 0).all() and not found["labels"].any()
    assert recipe.visualise(state, make_batch(), jax.random.key(0))["proposals"].ndim == 4
    assert recipe.shown_classes == ("object",)


def test_a_pyramid_has_a_proposer_of_its_own():
    pyramid = dataclasses.replace(SMALL["features"], fpn=True, channels=8)
    sizes = dataclasses.replace(SMALL["proposing"], sizes=((4.0,), (8.0,), (16.0,)))
    recipe = alternating.recipe(**SMALL | {"features": pyramid, "proposing": sizes}, step=2)
    state = jax.eval_shape(recipe.init, jax.random.key(0), make_batch())
    assert {*state.frozen} == {"proposer_resnet", "proposer_fpn", "rpn"}


def test_the_four_configs_differ_in_what_they_train_alone():
    four = [config.as_dict(config.load(f"configs/alternating_{step}_scenes.py")) for step in (1, 2, 3, 4)]
    assert [one["recipe"].pop("step") for one in four] == [1, 2, 3, 4]
    joint = config.as_dict(config.load("configs/faster_rcnn_scenes.py"))
    for one in (*four, joint):
        one["recipe"].pop("optimiser")
    assert all(one["recipe"] == joint["recipe"] and one["data"] == joint["data"] for one in four)
