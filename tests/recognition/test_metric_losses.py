"""Losses of embeddings and the choice of triplets: by brute force over all triplets, and as pytorch-metric-learning."""

import functools
import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.recognition import metric_losses
from cvjax.recognition.metric_losses import choose_triplets, chosen_distances, triplet_loss

KEY = jax.random.key(0)
LABELS = np.array([3, 0, 3, 1, 0, 3, 2, 1, 0, 3, 2, 7])  # classes of four, three and two, and one picture alone
ROWS = jnp.asarray(LABELS)
MARGIN = 0.2
CHOICES = ("batch_hard", "semi_hard", "hardest", "random")


def embeddings(spread=0.25, seed=0):
    """Unit vectors around a direction for each class, as far through training: of all kinds of triplets."""
    rng = np.random.default_rng(seed)
    vectors = rng.normal(size=(8, 5))[LABELS] * 0.4 + spread * rng.normal(size=(len(LABELS), 5)) + [1, 0, 0, 0, 0]
    return jnp.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), jnp.float32)


def squares(points):
    points = np.asarray(points, np.float64)
    return np.square(points[:, None] - points).sum(axis=2)


def brute_force(points, labels, choice):
    """{(anchor, positive, negative)} of a choice, by loops over all triplets."""
    distances, found = squares(points), set()
    rows = range(len(labels))
    for a in rows:
        positives = [p for p in rows if p != a and labels[p] == labels[a]]
        negatives = [n for n in rows if labels[n] != labels[a]]
        if choice == "batch_hard" and positives:
            positives = [max(positives, key=lambda p: distances[a, p])]
        for p in positives:
            if choice == "semi_hard":
                inside = [n for n in negatives if distances[a, p] < distances[a, n] < distances[a, p] + MARGIN]
            else:
                inside = negatives
            if inside:
                found.add((a, p, min(inside, key=lambda n: distances[a, n])))
    return found


@functools.partial(jax.jit, static_argnames=("choice", "soft", "average"))
def measured(points, choice, soft=False, average="all", key=KEY):
    triplets = choose_triplets(key, points, ROWS, choice, MARGIN)
    positive, negative = (chosen_distances(points, each) for each in (triplets.positive, triplets.negative))
    return triplet_loss(positive, negative, triplets.chosen, MARGIN, soft, average), triplets


def as_set(triplets):
    triplets = jax.device_get(triplets)
    rows, columns = (each.tolist() for each in np.nonzero(triplets.chosen))
    return {(a, int(triplets.positive[a, k]), int(triplets.negative[a, k])) for a, k in zip(rows, columns, strict=True)}


@pytest.mark.parametrize("choice", ["batch_hard", "semi_hard", "hardest"])
def test_the_choice_of_triplets_is_that_of_loops_over_all(choice):
    points = embeddings()
    expected, (loss, triplets) = brute_force(points, LABELS, choice), measured(points, choice)
    assert as_set(triplets) == expected and len(expected) > 5
    gaps = np.array([squares(points)[a, p] - squares(points)[a, n] for a, p, n in sorted(expected)])
    assert loss == pytest.approx(np.maximum(gaps + MARGIN, 0).mean(), rel=1e-4)  # float32
    soft, _ = measured(points, choice, soft=True)
    assert soft == pytest.approx(np.log1p(np.exp(gaps)).mean(), rel=1e-4)
    active, _ = measured(points, choice, average="active")
    assert active == pytest.approx((gaps + MARGIN)[gaps + MARGIN > 0].mean(), rel=1e-4)


def test_random_triplets_have_all_positives_and_each_negative_as_often():
    draw = jax.jit(jax.vmap(lambda key: choose_triplets(key, embeddings(), ROWS, "random")))
    drawn = jax.device_get(draw(jax.random.split(KEY, 2000)))
    same = LABELS[:, None] == LABELS
    assert (drawn.chosen == same & ~np.eye(len(LABELS), dtype=bool)).all()
    negative = drawn.negative[:, 0, 2]  # of anchor 0 with positive 2
    counts = np.bincount(negative, minlength=len(LABELS))
    assert not counts[LABELS == 3].any()
    np.testing.assert_allclose(counts[LABELS != 3] / 2000, 1 / 8, atol=0.04)  # five deviations of sqrt(p q / n)


def test_pairs_are_as_many_of_one_class_as_of_two_and_none_of_a_picture_with_itself():
    draw = jax.jit(jax.vmap(lambda key: metric_losses.balanced_pairs(key, ROWS)))
    pairs = jax.device_get(draw(jax.random.split(KEY, 50)))
    assert (pairs.same == (LABELS[pairs.left] == LABELS[pairs.right]))[pairs.there].all()
    assert (pairs.left != pairs.right)[pairs.there].all()
    alone = np.arange(24) == 11  # the last picture has no other of its class
    assert (pairs.there == ~alone).all()
    assert len(np.unique(pairs.right[:, 0])) == 3  # all others of its class come


@pytest.mark.parametrize("choice", CHOICES)
@pytest.mark.parametrize("points", ["identical", "zeros"])
def test_gradients_of_identical_pictures_are_finite(choice, points):
    same = jnp.zeros((12, 5)) if points == "zeros" else jnp.broadcast_to(jnp.array([3.0, 4, 0, 0, 0]), (12, 5))

    def loss(points):
        points = metric_losses.unit(points)
        distance = metric_losses.root(metric_losses.squared_distances(points, points))
        pairs = metric_losses.contrastive(distance[:, 0], jnp.asarray(LABELS == 3))
        supcon = metric_losses.supervised_contrastive_loss(points, ROWS)
        arcface = metric_losses.arcface_logits(points @ points[:1].T * jnp.array([[1.0, -1.0]]), ROWS % 2)
        return measured(points, choice)[0] + pairs.sum() + supcon + arcface.sum()

    assert np.isfinite(jax.grad(loss)(same)).all()


def test_contrastive_is_half_the_squares_of_equation_4():
    losses = metric_losses.contrastive(jnp.array([0.5, 0.5, 1.5, 1.5]), jnp.array([True, False, True, False]), 0.7)
    np.testing.assert_allclose(losses, [0.125, 0.02, 1.125, 0], rtol=1e-5)


def test_supervised_contrast_is_its_definition():
    points = np.asarray(embeddings(), np.float64)
    similar, losses = np.exp(points @ points.T / 0.1), []
    for a, label in enumerate(LABELS[:-1]):
        others = [i for i in range(len(LABELS)) if i != a]
        positives = [p for p in others if LABELS[p] == label]
        total = sum(similar[a, i] for i in others)
        losses.append(-np.mean([np.log(similar[a, p] / total) for p in positives]))
    found = metric_losses.supervised_contrastive_loss(embeddings(), ROWS, 0.1)
    assert found == pytest.approx(np.mean(losses), rel=1e-5)


@pytest.mark.parametrize("easy", [False, True])
def test_the_margin_of_arcface_is_added_to_the_angle_and_the_logit_falls_with_the_angle(easy):
    angles = np.linspace(0, math.pi, 181)
    cosines = np.stack([np.cos(angles), np.full(181, 0.3)], axis=1)
    cosines = jnp.asarray(cosines, jnp.float32)
    logits = np.asarray(metric_losses.arcface_logits(cosines, jnp.zeros(181, int), 0.5, 64.0, easy))
    np.testing.assert_allclose(logits[:, 1], 64 * 0.3, rtol=1e-5)
    moved = angles < (math.pi / 2 if easy else math.pi - 0.5) - 1e-3
    # The sine of a rounded cosine near 1 has an error of 3e-4.
    np.testing.assert_allclose(logits[moved, 0], 64 * np.cos(angles + 0.5)[moved], atol=0.03)
    rest = 64 * (np.cos(angles) - (0 if easy else 0.5 * math.sin(0.5)))
    past = angles > (math.pi / 2 if easy else math.pi - 0.5) + 1e-3
    np.testing.assert_allclose(logits[past, 0], rest[past], atol=1e-3)
    if not easy:
        assert (np.diff(logits[:, 0]) < 0).all()


# --- pytorch-metric-learning --------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def oracle():
    """The library, with squared Euclidean distances of the points as they are."""
    torch = pytest.importorskip("torch")
    pytest.importorskip("pytorch_metric_learning")
    from pytorch_metric_learning import distances, losses, miners, reducers

    squared = functools.partial(distances.LpDistance, power=2, normalize_embeddings=False)
    return torch, losses, miners, reducers, squared


@pytest.mark.parity
@pytest.mark.parametrize("average", ["all", "active"])
def test_batch_hard_is_that_of_the_library(oracle, average):
    torch, losses, miners, reducers, squared = oracle
    points, labels = torch.tensor(np.asarray(embeddings()), requires_grad=True), torch.tensor(LABELS)
    mined = miners.BatchHardMiner(distance=squared())(points, labels)
    reducer = reducers.MeanReducer() if average == "all" else reducers.AvgNonZeroReducer()
    loss = losses.TripletMarginLoss(MARGIN, distance=squared(), reducer=reducer)(points, labels, mined)
    loss.backward()
    (ours, triplets), gradient = jax.value_and_grad(measured, has_aux=True)(embeddings(), "batch_hard", average=average)
    assert as_set(triplets) == set(zip(*(each.tolist() for each in mined), strict=True))
    assert ours == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, points.grad, atol=1e-5)  # the library's distances are roots, squared


@pytest.mark.parity
def test_semi_hard_triplets_are_the_nearest_of_the_librarys(oracle):
    """It has all semi-hard negatives of a pair; ours is the one that FaceNet's choice of hard ones leaves."""
    torch, _, miners, _, squared = oracle
    miner = miners.TripletMarginMiner(MARGIN, "semihard", distance=squared())
    mined = miner(torch.tensor(np.asarray(embeddings())), torch.tensor(LABELS))
    nearest = {}
    for a, p, n in zip(*(each.tolist() for each in mined), strict=True):
        other = nearest.setdefault((a, p), n)
        nearest[a, p] = min(other, n, key=lambda n, a=a: squares(embeddings())[a, n])
    _, triplets = measured(embeddings(), "semi_hard")
    assert as_set(triplets) == {(a, p, n) for (a, p), n in nearest.items()}


@pytest.mark.parity
def test_supervised_contrast_is_the_librarys(oracle):
    torch, losses, *_ = oracle
    points, labels = torch.tensor(np.asarray(embeddings()), requires_grad=True), torch.tensor(LABELS)
    loss = losses.SupConLoss(0.1)(points, labels)
    loss.backward()

    def by_cosines(points):
        return metric_losses.supervised_contrastive_loss(metric_losses.unit(points), ROWS)

    ours, gradient = jax.value_and_grad(by_cosines)(embeddings())
    assert ours == pytest.approx(loss.item(), rel=1e-5)
    np.testing.assert_allclose(gradient, points.grad, atol=1e-5)


@pytest.mark.parity
def test_arcface_is_the_librarys(oracle):
    torch, losses, *_ = oracle
    net = losses.ArcFaceLoss(8, 5, margin=math.degrees(0.5), scale=64)
    points, weights = torch.tensor(np.asarray(embeddings()), requires_grad=True), jnp.asarray(net.W.detach().numpy().T)
    loss = net(points, torch.tensor(LABELS))
    loss.backward()

    def ours(x):
        cosines = metric_losses.unit(x) @ metric_losses.unit(weights).T
        logits = metric_losses.arcface_logits(cosines, ROWS)
        return -jnp.take_along_axis(jax.nn.log_softmax(logits), LABELS[:, None], axis=1).mean()

    found, gradient = jax.value_and_grad(ours)(embeddings())
    assert found == pytest.approx(loss.item(), rel=1e-4)
    np.testing.assert_allclose(gradient, points.grad, rtol=1e-3, atol=1e-4)  # the library goes by arccos


@pytest.mark.parity
def test_contrastive_of_the_library_has_neither_squares_nor_the_half(oracle):
    torch, losses, *_ = oracle
    from pytorch_metric_learning import distances

    points = embeddings()
    distance = np.sqrt(squares(points))
    pairs = [(a, b) for a, b in itertools.permutations(range(len(LABELS)), 2)]
    kinds = {same: [distance[a, b] for a, b in pairs if (LABELS[a] == LABELS[b]) == same] for same in (True, False)}
    halves = [metric_losses.contrastive(jnp.array(d), jnp.full(len(d), same), 0.7) for same, d in kinds.items()]
    roots = [np.sqrt(2 * np.asarray(each, np.float64)) for each in halves]
    plain = distances.LpDistance(normalize_embeddings=False)
    loss = losses.ContrastiveLoss(0, 0.7, distance=plain)
    theirs = loss(torch.tensor(np.asarray(points)), torch.tensor(LABELS)).item()
    assert sum(each[each > 0].mean() for each in roots) == pytest.approx(theirs, rel=1e-4)
