"""YOLO9000: the tree against loops down its branches, losses on ancestors only, and boxes that are truly withheld."""

import functools
import inspect

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from drawn_states import draw_state
from spoilt_batches import SPOILT, finite, spoil

from cvjax.detection import yolo9000
from cvjax.detection.detector import Detection
from cvjax.detection.yolo9000 import WordTree
from cvjax.errors import UserError

# Siblings need not stand together, and leaves are at several depths.
TREE = WordTree(("animal", "thing", "dog", "chair", "cat", "terrier", "poodle", "table"), (-1, -1, 0, 1, 0, 2, 2, 1))
SHAPE, ANCHORS, CLASSES = (16, 16, 3), ((1.0, 1.5), (2.0, 2.0)), tuple("0123456789")
UNBOXED = ("2", "5")


def conditional(logits):
    """Softmax over each node's siblings, by loops."""
    odds = np.exp(np.float64(logits))
    siblings = [[n for n, p in enumerate(TREE.parents) if p == parent] for parent in TREE.parents]
    return np.array([odds[node] / odds[group].sum() for node, group in enumerate(siblings)])


def climb(node):
    return [] if node < 0 else [node, *climb(TREE.parents[node])]


def test_conditional_probabilities_are_softmaxes_over_siblings():
    logits = np.random.default_rng(0).normal(size=(4, 3, 8)) * 5
    ours = jnp.exp(yolo9000.log_softmax(jnp.float32(logits), TREE))
    np.testing.assert_allclose(ours, np.apply_along_axis(conditional, -1, logits), rtol=1e-5)
    huge = yolo9000.log_softmax(jnp.float32(1e4 * logits), TREE)
    assert np.isfinite(huge).all()


def test_a_path_has_the_product_of_its_probabilities():
    logits = np.random.default_rng(1).normal(size=(5, 8))
    ours = jnp.exp(yolo9000.path_log_probability(jnp.float32(logits), jnp.arange(8), TREE))
    for row, p in zip(logits, ours, strict=True):
        given = conditional(row)
        np.testing.assert_allclose(p, [np.prod(given[climb(node)]) for node in range(8)], rtol=1e-5)
        np.testing.assert_allclose(p[jnp.array([5, 6, 4, 3, 7])].sum(), 1, rtol=1e-5)  # the leaves


def walk(logits, threshold):
    """Downwards from the top, as section 4 tells it."""
    given, node, p = conditional(logits), -1, 1.0
    while True:
        children = [child for child, parent in enumerate(TREE.parents) if parent == node]
        if not children:
            return node
        best = max(children, key=lambda child: given[child])
        if p * given[best] <= threshold and node >= 0:
            return node
        node, p = best, p * given[best]


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8])
def test_descends_while_the_path_is_probable(threshold):
    logits = 2 * np.random.default_rng(2).normal(size=(60, 8))
    ours = yolo9000.walk_down(jnp.float32(logits), TREE, threshold).tolist()
    assert ours == [walk(row, threshold) for row in logits]
    assert len(set(ours)) > 4  # inner nodes and leaves
    tie = yolo9000.walk_down(jnp.zeros((1, 8)), TREE, threshold).item()
    assert tie == walk(np.zeros(8), threshold)


def test_the_loss_of_a_class_touches_the_groups_of_its_ancestors_only():
    logits = np.random.default_rng(3).normal(size=8)
    nodes = jnp.arange(8)
    for node in range(8):
        slope = jax.grad(lambda x, n=node: -yolo9000.path_log_probability(x, nodes, TREE)[n])(jnp.float32(logits))
        expected = np.zeros(8)
        for ancestor in climb(node):
            group = [n for n, p in enumerate(TREE.parents) if p == TREE.parents[ancestor]]
            expected[group] = conditional(logits)[group]
            expected[ancestor] -= 1
        np.testing.assert_allclose(slope, expected, atol=1e-6)


def test_reads_trees(tmp_path):
    file = tmp_path / "own.tree"
    file.write_text("".join(f"{name} {parent}\n" for name, parent in zip(TREE.names, TREE.parents, strict=True)))
    assert yolo9000.read_tree(str(file)) == TREE
    digits = yolo9000.read_tree("digits")
    assert set(CLASSES) < set(digits.names) and len(digits.names) == 16
    path = [digits.names[n] for n in digits.paths[digits.names.index("7")] if n < 16]
    assert path == ["7", "odd_straight", "odd"]


@pytest.mark.parametrize(
    "text", ["", "a\n", "a 0\n", "a -1\nb 1\n", "a -2\n", "a -1 3\n", "a -1\na 0\n", "a x\n", "\n", "caf\xe9 -1\n"]
)
def test_refuses_files_that_are_not_trees(tmp_path, text):
    file = tmp_path / "own.tree"
    file.write_text(text, encoding="latin-1")
    with pytest.raises(UserError, match=r"own\.tree"):
        yolo9000.read_tree(str(file))


def test_image_losses_train_only_the_most_probable_box():
    generator = np.random.default_rng(4)
    outputs = generator.normal(size=(4, 2, 3, 2, 5 + 8))
    outputs[0, ..., 4] -= 3  # objectness below .3
    outputs[1, ..., 4] += 6
    nodes, shown = [5, 3], np.array([[True, False], [True, True], [False, False], [False, True]])

    @jax.jit
    @functools.partial(jax.grad, has_aux=True)
    def gradient(outputs):
        parts = yolo9000.image_losses(outputs, jnp.asarray(shown), jnp.array(nodes), TREE)
        return sum(parts.values()).sum(), parts

    slope, parts = gradient(jnp.float32(outputs))
    for image in range(4):
        expected, loss_class, loss_object = np.zeros_like(outputs[image]), 0.0, 0.0
        for node, visible in zip(nodes, shown[image], strict=True):
            objectness = 1 / (1 + np.exp(-outputs[image, ..., 4]))
            given = np.apply_along_axis(conditional, -1, outputs[image, ..., 5:])
            likelihood = given[..., climb(node)].prod(-1)
            best = np.unravel_index(np.argmax(objectness * likelihood), objectness.shape)
            if not visible:
                continue
            o = objectness[best]
            missing = max(0.3 - o, 0)
            loss_object += 5 * missing**2 / 2
            loss_class -= np.log(likelihood[best])
            expected[best][4] -= 5 * missing * o * (1 - o)
            for ancestor in climb(node):
                group = [n for n, p in enumerate(TREE.parents) if p == TREE.parents[ancestor]]
                expected[best][5 + np.array(group)] += given[best][group]
                expected[best][5 + ancestor] -= 1
        np.testing.assert_allclose(slope[image], expected, atol=1e-5)
        np.testing.assert_allclose(parts["image_class"][image], loss_class, rtol=1e-5)
        np.testing.assert_allclose(parts["image_object"][image], loss_object, rtol=1e-4)
    assert parts["image_object"][0] > 0 == parts["image_object"][1]


def test_the_gate_excludes_boxes_of_low_objectness():
    outputs = np.zeros((1, 1, 3, 1, 13), np.float32)
    outputs[0, 0, :, 0, 4] = [4.0, 0.0, -3.0]  # objectness .98, .5, .05
    outputs[0, 0, 2, 0, 5:] += 9.0 * np.isin(np.arange(8), climb(5))  # where the class is certain
    outputs[0, 0, 1, 0, 5:] += 4.0 * np.isin(np.arange(8), climb(5))

    def slope(gate):
        def loss(outputs):
            parts = yolo9000.image_losses(outputs, jnp.array([[True]]), jnp.array([5]), TREE, gate=gate)
            return parts["image_class"].sum()

        return np.abs(jax.jit(jax.grad(loss))(jnp.asarray(outputs))[0, 0, :, 0, 5:]).sum(-1) > 0

    # Objectness times probability is about .02, .4 and .05 of the three.
    assert slope(0.0).tolist() == [False, True, False]
    assert slope(0.6).tolist() == [True, False, False]


def test_absent_loss_equals_loops_over_boxes():
    generator = np.random.default_rng(5)
    outputs = generator.normal(size=(3, 2, 3, 2, 5 + 8))
    nodes, shown = [5, 3], np.array([[True, False], [True, True], [False, False]])

    def loss(outputs):
        return yolo9000.absent_loss(outputs, jnp.asarray(shown), jnp.array(nodes), TREE)

    expected = np.zeros(3)
    for place in np.ndindex(3, 2, 3, 2):
        visible = shown[place[0]]
        objectness, given = 1 / (1 + np.exp(-outputs[place][4])), conditional(outputs[place][5:])
        for node, there in zip(nodes, visible, strict=True):
            if visible.any() and not there:
                expected[place[0]] -= objectness * np.log(1 - given[climb(node)].prod())
    assert expected[0] > 0 == expected[1] == expected[2]
    np.testing.assert_allclose(jax.jit(loss)(jnp.float32(outputs)), expected, rtol=1e-4)
    sure = jnp.zeros((3, 1, 1, 1, 13)).at[..., 5:].set(40.0 * (jnp.arange(8) == 3) + 40.0 * (jnp.arange(8) == 1))
    slope = jax.jit(jax.grad(lambda outputs: loss(outputs).sum()))(sure)
    assert np.isfinite(slope).all() and not slope[..., 4].any()


# --- recipe -------------------------------------------------------------------------------------------------------


def make_recipe(**options):
    options = dict(ema=0.9, width=4, stages=(1, 1, 1), shape=SHAPE, anchors=ANCHORS) | options
    return yolo9000.recipe(CLASSES, "digits", UNBOXED, **options)


def make_batch(labels, seed=0):
    """Noise with two random boxes an image."""
    generator = np.random.default_rng(seed)
    count = len(labels)
    corner = generator.uniform(0, 8, size=(count, 2, 2))
    boxes = np.concatenate([corner, corner + generator.uniform(3, 8, size=corner.shape)], axis=-1)
    batch = dict(image=generator.uniform(size=(count, *SHAPE)).astype(np.float32), boxes=boxes.astype(np.float32))
    batch |= dict(labels=np.array(labels, np.int32), mask=np.ones((count, 2), bool))
    flags = {name: np.zeros((count, 2), bool) for name in ("difficult", "crowd")}
    return jax.tree.map(jnp.asarray, {**batch, **flags})


@pytest.fixture(scope="module")
def started():
    recipe, batch = make_recipe(), make_batch([[1, 3], [2, 4], [5, 2], [9, 5]])
    return recipe, draw_state(recipe, batch), batch, jax.jit(recipe.train_step)


def test_withheld_boxes_change_nothing(started):
    _, state, batch, step = started
    expected = jax.device_get(step(state, batch, jax.random.key(0)))
    others = {
        "boxes": batch["boxes"].at[1:].set(jnp.nan),
        "labels": batch["labels"].at[1:].set(batch["labels"][1:, ::-1]),  # which of the boxes they are of
        "difficult": batch["difficult"].at[1:].set(True),
    }
    for name, value in others.items():
        again = jax.device_get(step(state, {**batch, name: value}, jax.random.key(0)))
        jax.tree.map(np.testing.assert_array_equal, again, expected)
    seen = jax.device_get(step(state, {**batch, "boxes": batch["boxes"] + 1}, jax.random.key(0)))
    assert seen[1]["loss/coordinates"] != expected[1]["loss/coordinates"]
    named = jax.device_get(step(state, {**batch, "labels": batch["labels"].at[1:, 0].set(2)}, jax.random.key(0)))
    assert named[1]["loss/image_class"] != expected[1]["loss/image_class"]


def test_withholds_boxes_and_keeps_the_classes_shown():
    labels = np.array([[2, 3, 3], [1, 3, 9], [4, 5, 2], [0, 0, 0]])
    batch = make_batch(labels[:, :2])
    batch |= {
        "labels": labels,
        "boxes": np.ones((4, 3, 4)),
        "mask": np.array([[1, 1, 1], [1, 1, 1], [1, 1, 0], [0] * 3]) > 0,
    }
    told, boxed, shown = yolo9000.withhold(batch, [2, 5], 10)
    assert boxed.tolist() == [False, True, False, True]
    assert [np.flatnonzero(row).tolist() for row in shown] == [[2, 3], [], [4, 5], []]
    assert told["mask"].any(1).tolist() == [False, True, False, False]
    assert not told["boxes"][jnp.array([0, 2])].any() and (told["labels"][1] == labels[1]).all()


def test_images_without_boxes_have_image_losses_only(started):
    _, state, batch, step = started
    metrics = {}
    for name, labels in {"boxed": [[1, 3]] * 4, "unboxed": [[2, 3]] * 4}.items():
        metrics[name] = jax.device_get(step(state, {**batch, "labels": jnp.int32(labels)}, jax.random.key(0))[1])
    image_losses = {"loss/image_class", "loss/image_object"}
    for name, value in metrics["boxed"].items():
        assert (value == 0) == (name in image_losses), name
    for name, value in metrics["unboxed"].items():
        assert name == "loss/image_object" or (value > 0) == (name in {*image_losses, "loss/total"}), name


@pytest.mark.parametrize("how", SPOILT)
def test_a_step_stays_finite_and_small(started, how):
    _, state, batch, step = started
    usual, (after, metrics) = (step(state, b, jax.random.key(0)) for b in (batch, spoil(batch, how)))
    assert finite(after, metrics) and metrics["loss/total"] < 50 * usual[1]["loss/total"]  # logarithms of sizes


def test_the_average_detects(started):
    recipe, state, batch, step = started
    after, _ = step(state, batch, jax.random.key(0))
    stats, average = (jax.tree.map(jnp.ones_like, tree) for tree in (after.stats, after.average))
    latest_spoilt = after.replace(params=jax.tree.map(jnp.zeros_like, after.params), stats=stats)
    states = (after, latest_spoilt, after.replace(average=average))
    expected, same, other = (recipe.predict(state, batch, jax.random.key(0)) for state in states)
    jax.tree.map(np.testing.assert_array_equal, same, expected)
    assert (other["scores"] != expected["scores"]).any()


def test_flip_test_makes_detections_of_mirrored_images_mirrored(started):
    _, state, batch, _ = started
    detect = make_recipe(detection=Detection(0.005, 0.45, flip_test=True)).eval_step
    mirrored = {**batch, "image": batch["image"][:, :, ::-1]}
    found, seen = (jax.device_get(detect(state, given, jax.random.key(0))) for given in (batch, mirrored))
    np.testing.assert_allclose(seen["scores"], found["scores"], atol=1e-5)
    boxes = np.abs(seen["boxes"][..., [2, 1, 0, 3]] - [SHAPE[1], 0, SHAPE[1], 0])
    for image in range(len(boxes)):  # of equal scores either may come first
        for box in found["boxes"][image, :10]:
            assert np.abs(boxes[image] - box).max(1).min() < 1e-3


def test_the_default_network_is_that_of_the_paper():
    """Of 9,418 nodes, for which Darknet's yolo9000.cfg has 3 * (5 + 9418) = 28,269 filters behind Darknet-19."""
    defaults = {name: p.default for name, p in inspect.signature(yolo9000.recipe).parameters.items()}
    anchors, head, passthrough = (defaults[name] for name in ("anchors", "head", "passthrough"))
    net = yolo9000.YoloV2(len(anchors), 9418, defaults["width"], defaults["stages"], head, passthrough)
    variables = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, *defaults["shape"])))
    assert variables["params"]["predictions"]["kernel"].shape == (1, 1, 1024, 28_269)
    # darknet19_448.conv.23, a file of 79,327,120 bytes of which 16 are its header; then the 28,269 filters with biases
    assert sum(leaf.size for leaf in jax.tree.leaves(variables)) == (79_327_120 - 16) // 4 + 1025 * 28_269


def test_evaluates_classes_and_predicts_nodes(started):
    recipe, state, batch, _ = started
    found = jax.device_get(recipe.eval_step(state, batch, jax.random.key(0)))
    assert set(found["labels"].ravel()) <= set(range(10))
    told = jax.device_get(recipe.predict(state, {"image": batch["image"]}, jax.random.key(0)))
    assert told["labels"].max() >= 10  # an untrained network knows no digit for sure
    sure = make_recipe(tree_threshold=0.0).predict(state, {"image": batch["image"]}, jax.random.key(0))
    assert sure["labels"].max() < 10
    assert recipe.visualise(state, batch, jax.random.key(0))["detections"].ndim == 4


def test_figures_of_classes_with_and_without_boxes(started):
    recipe, _, batch, _ = started
    batch = jax.device_get(batch)
    rows = {**batch, "area": np.ones((4, 2), np.float32)}
    right = batch["labels"] != 5  # of the classes on these images, 1, 2, 3, 4, 5 and 9, all but 5 are found
    found = dict(boxes=batch["boxes"], labels=batch["labels"], scores=np.full((4, 2), 0.9, np.float32), detected=right)
    figures = recipe.score(iter([(rows, found)]))
    assert figures["map_boxed"] == pytest.approx(1) and figures["map_unboxed"] == pytest.approx(0.5)
    assert figures["map_voc07"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    "arguments, message",
    [
        ((("0", "ten"), "digits", ("0",)), "'ten'"),
        ((CLASSES, "digits", ("11",)), "'11'"),
        ((CLASSES, "digit", ("1",)), "Did you mean 'digits'"),
        ((CLASSES, "digits", ()), "some of the classes"),
        ((CLASSES, "digits", CLASSES), "some of the classes"),
    ],
)
def test_refuses(arguments, message):
    with pytest.raises(UserError, match=message):
        yolo9000.recipe(*arguments)
