"""Fast R-CNN learns to detect and to move regions at once, whatever is in a batch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from proposed_squares import COUNT, SEARCH, TINY, squares
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import fast_rcnn
from cvjax.errors import UserError

KEY = jax.random.key(0)
SHARED = {name: value for name, value in TINY.items() if name not in ("windows", "svm")}


def tiny(**changes):
    arguments = {**SHARED, "side": 32, "bins": 4, "regions": 16, "foreground": 0.5, "background": (0.0, 0.5)}
    return fast_rcnn.recipe(**{**arguments, **changes})


def figures(recipe, state, batch):
    return recipe.score(iter([(batch, jax.device_get(recipe.eval_step(state, batch, KEY)))]))


@pytest.fixture(scope="module")
def trained():
    """A recipe, its state after some steps, its step and the last metrics."""
    recipe, batch = tiny(), squares()
    state, step = draw_state(recipe, batch), jax.jit(recipe.train_step)
    for _ in range(120):
        state, metrics = step(state, batch, jax.random.fold_in(KEY, state.step))
    return recipe, state, step, metrics


def test_learns_to_detect_squares_and_moves_regions_onto_them(trained):
    recipe, state, _, metrics = trained
    batch = squares(seed=1)
    found = figures(recipe, state, batch)
    assert found["map_voc07"] > 0.8 and found["proposal_recall"] == 1.0
    assert 0.3 < metrics["share/objects"] <= 0.5
    moveless = state.replace(average=jax.tree.map(lambda leaf: leaf, state.average))
    offsets = moveless.average["head"]["params"]["offsets"]
    moveless.average["head"]["params"]["offsets"] = jax.tree.map(jnp.zeros_like, offsets)
    assert figures(recipe, moveless, batch)["ap"] < found["ap"] - 0.02


def test_the_loss_of_a_batch_is_that_of_its_regions(trained):
    _, state, step, _ = trained
    _, metrics = step(state, squares(), KEY)
    np.testing.assert_allclose(metrics["loss/total"], metrics["loss/classification"] + metrics["loss/boxes"], rtol=1e-5)
    none = squares()
    none["mask"] = np.zeros_like(none["mask"])
    _, metrics = step(state, none, KEY)
    assert float(metrics["loss/boxes"]) == 0 == float(metrics["share/objects"])  # background is not moved
    assert float(metrics["loss/classification"]) > 0


def test_padding_of_proposals_is_never_detected(trained):
    recipe, state, _, _ = trained
    batch = squares(4, seed=2)
    spoilt = dict(batch, proposals=np.where(batch["proposals_mask"][..., None], batch["proposals"], 7.0))
    one, two = (recipe.eval_step(state, each, KEY) for each in (batch, spoilt))
    jax.tree.map(np.testing.assert_array_equal, one, two)
    none = dict(batch, proposals_mask=np.zeros_like(batch["proposals_mask"]))
    assert not recipe.eval_step(state, none, KEY)["detected"].any()


def test_of_an_image_of_ones_own_the_regions_are_proposed(trained):
    recipe, state, _, _ = trained
    images = squares(2, seed=5)["image"]
    found = recipe.predict(state, {"image": jnp.asarray(images)}, KEY)
    assert found["boxes"].shape[0] == 2 and found["detected"].any()
    assert recipe.train_step.__self__.proposals.max_boxes == COUNT


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_whatever_the_objects(trained, how):
    _, state, step, _ = trained
    new, metrics = step(state, spoil(squares(), how), KEY)
    assert finite(new, metrics)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"side": 1}, "no feature is left"),
        ({"regions": 2, "foreground": 0.25}, "foreground=0.25 of config.recipe.regions=2 leaves none for objects"),
        ({"regions": 8, "foreground": 1.0}, "or none for background"),
        ({"background": (0.5, 0.5)}, "a lower and a higher IoU"),
        ({"search": {"function": SEARCH["function"], "kind": "array"}}, r"search\.kind='array': .*\"boxes\""),
        ({"search": {**SEARCH, "kind": "maps"}}, "kind='maps': expected one of"),
    ],
)
def test_refuses_arguments_that_do_not_fit(changes, message):
    with pytest.raises(UserError, match=message):
        tiny(**changes)
