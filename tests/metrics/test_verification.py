"""Rates are scikit-learn's, and what it does not have is brute force over every threshold."""

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from cvjax.errors import UserError
from cvjax.metrics import plots
from cvjax.metrics import verification as v

SAME = np.array([True, True, True, False, False, False, False])
NEAR = np.array([0.1, 0.2, 0.6, 0.4, 0.6, 0.8, 0.9])  # one person and two at the same distance


def drawn(seed=0, count=400, ties=True):
    """Distances that tell something, with ties if asked, and whether the pair is of one person."""
    generator = np.random.default_rng(seed)
    same = generator.random(count) < 0.3
    distances = generator.normal(1 - same, 0.8)
    return (np.round(distances, 1) if ties else distances), same


# --- verification -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ties", [True, False])
def test_roc_and_its_area_are_scikit_learns(ties):
    distances, same = drawn(ties=ties)
    rates = v.roc(distances, same)
    false, true, scores = roc_curve(same, -distances, drop_intermediate=False)
    np.testing.assert_array_equal(rates.false, false)
    np.testing.assert_array_equal(rates.true, true)
    np.testing.assert_array_equal(rates.threshold, -scores)
    assert v.area(rates) == pytest.approx(roc_auc_score(same, -distances), abs=1e-12)


def test_rates_by_hand():
    rates = v.roc(NEAR, SAME)
    assert rates.threshold.tolist() == [-np.inf, 0.1, 0.2, 0.4, 0.6, 0.8, 0.9] and rates.refusable == 4
    # Between 0.4 (a quarter accepted wrongly, a third refused) and 0.6 (half, none) the two meet at 2/7.
    assert v.equal_error_rate(rates) == pytest.approx(2 / 7)
    assert v.true_rate_at(rates, 0.25) == pytest.approx(2 / 3) and v.threshold_at(rates, 0.25) == pytest.approx(0.5)
    assert v.true_rate_at(rates, 0.49) == pytest.approx(2 / 3) and v.true_rate_at(rates, 0.5) == 1
    assert v.best_threshold(NEAR, SAME) == pytest.approx(0.3)  # one of seven is wrong; at 0.5 and 0.7 two


def test_equal_error_of_certain_blind_and_wrong_distances():
    same = np.array([True, True, False, False])
    for distances, error in (([0, 0, 1, 1], 0.0), ([1, 1, 1, 1], 0.5), ([1, 1, 0, 0], 1.0)):
        assert v.equal_error_rate(v.roc(np.array(distances, float), same)) == error


def test_a_rate_that_nothing_reaches_has_no_threshold():
    rates = v.roc(np.array([0.1, 0.2, 0.3]), np.array([False, True, False]))
    assert v.threshold_at(rates, 0.5) == pytest.approx(0.25)
    assert v.threshold_at(v.roc(np.ones(7), SAME), 0.25) == -np.inf  # whoever accepts one accepts all


@pytest.mark.parametrize("seed", range(5))
def test_best_threshold_is_as_good_as_any(seed):
    distances, same = drawn(seed)
    accuracy = lambda at: (distances[same] <= at).mean() + (distances[~same] > at).mean()  # noqa: E731
    assert accuracy(v.best_threshold(distances, same)) == pytest.approx(max(map(accuracy, [-9, *distances])))


def test_best_threshold_does_not_refuse_everything_where_most_pairs_are_of_two_people():
    distances, same = drawn(count=5000, ties=False)
    rare = same & (np.cumsum(same) <= 20) | ~same
    assert 0 < v.best_threshold(distances[rare], same[rare]) < 1


def test_folds_do_not_choose_their_own_threshold():
    distances, same = drawn(ties=False)
    fold = np.random.default_rng(1).integers(10, size=len(same))
    found = v.ten_fold_accuracy(distances, same, fold)
    for number in range(10):
        there = fold == number
        at = v.best_threshold(distances[~there], same[~there])
        assert found.thresholds[number] == at
        assert found.accuracies[number] == ((distances[there] <= at) == same[there]).mean()
    spread = np.sqrt(np.square(found.accuracies - found.mean).sum() / 9)  # LFW's report, section V
    assert found.mean == found.accuracies.mean() and found.standard_error == pytest.approx(spread / np.sqrt(10))
    # A fold whose distances are ten times as large is judged by the others' threshold, and refuses all its pairs.
    shifted = np.where(fold == 3, distances + 100, distances)
    assert v.ten_fold_accuracy(shifted, same, fold).accuracies[3] == (~same[fold == 3]).mean()


def test_pairs_of_folds_share_nobody():
    labels = np.repeat(np.arange(40) * 7, np.arange(40) % 5 + 1)  # some have one picture
    pairs = v.draw_pairs(labels, folds=10, pairs=5, seed=3)
    left, right = labels[pairs.left], labels[pairs.right]
    np.testing.assert_array_equal(pairs.same, left == right)
    people = [set(left[pairs.fold == number]) | set(right[pairs.fold == number]) for number in range(10)]
    assert sum(map(len, people)) == len(set().union(*people))
    assert len({frozenset(pair) for pair in zip(pairs.left, pairs.right, strict=True)}) == len(pairs.left)
    assert (pairs.left != pairs.right).all()
    for number in range(10):
        mine = pairs.same[pairs.fold == number]
        assert mine.sum() == (~mine).sum() > 0
    assert not np.array_equal(pairs.left, v.draw_pairs(labels, 10, 5, seed=4).left)


@pytest.mark.parametrize("several", [10, 11, 14, 20])
def test_twenty_people_are_enough_if_ten_have_two_pictures(several):
    labels = np.append(np.repeat(np.arange(several), 2), np.arange(several, 20))
    assert len(np.unique(v.draw_pairs(labels, seed=several).fold)) == 10
    assert v.figures(np.random.default_rng(0).normal(size=(len(labels), 3)), labels).keys() >= {"verification", "rank1"}


def test_tables_of_pairs_stay_small(monkeypatch):
    labels = np.repeat(np.arange(30), np.append(np.full(29, 4), 200))
    sizes, table = [], v.distance_tables
    monkeypatch.setattr(v, "PICTURES", 90)
    monkeypatch.setattr(v, "distance_tables", lambda a, b: sizes.append(len(a)) or table(a, b))
    found = v.figures(np.random.default_rng(0).normal(size=(len(labels), 3)), labels)
    assert sizes == [90] and found["rank1"] > 0  # three of each person
    pairs = v.draw_pairs(labels)
    mine = np.union1d(pairs.left, pairs.right)
    assert (labels[mine] == 29).sum() == 30 and len(np.unique(labels[mine])) == 30  # a third of 90: one of three people


def test_people_with_many_pictures_are_drawn_no_more_often():
    labels = np.repeat(np.arange(4), [40, 4, 4, 4])  # nearly all pairs of one person are of the first
    counts = np.zeros(4)
    for seed in range(40):
        pairs = v.draw_pairs(labels, folds=1, pairs=2, seed=seed)
        np.add.at(counts, labels[pairs.left[pairs.same]], 1)
    assert counts[0] / counts.sum() < 0.45  # 97 % of the pairs


# --- identification -----------------------------------------------------------------------------------------------


def test_ranks_and_matches_are_brute_force():
    generator = np.random.default_rng(0)
    entries, probes = generator.permutation(np.repeat([3, 5, 8, 9], 3)), generator.choice([3, 5, 8, 9], 50)
    table = np.round(generator.random((50, 12)) + (probes[:, None] != entries) * 0.3, 1)
    found = v.ranks(table, probes, entries)
    for rank, row, probe in zip(found, table, probes, strict=True):
        nearest = {person: row[entries == person].min() for person in (3, 5, 8, 9)}
        assert rank == sum(nearest[person] <= nearest[probe] for person in nearest if person != probe)
    assert len(set(found)) > 2
    np.testing.assert_allclose(v.cumulative_matches(found, 4), [(found < depth).mean() for depth in (1, 2, 3, 4)])


def test_one_answer_for_everybody_identifies_nobody():
    assert (v.ranks(np.ones((4, 4)), np.arange(4), np.arange(4)) == 3).all()
    assert v.figures(np.ones((80, 3)), np.repeat(np.arange(20), 4))["rank1"] == 0


def test_open_set_is_brute_force():
    generator = np.random.default_rng(0)
    entries, probes = np.arange(6), generator.integers(6, size=40)
    known = np.round(generator.random((40, 6)) + (probes[:, None] != entries) * 0.5, 1)
    unknown = np.round(generator.random((30, 6)) + 0.4, 1)
    rates = v.open_set(known, probes, entries, unknown)
    first = v.ranks(known, probes, entries) == 0
    assert 0.2 < first.mean() < 0.95 and rates.refusable == 30 and rates.true[-1] == first.mean()
    for false, true, at in zip(*rates[:3], strict=True):
        assert true == pytest.approx((first & (known.min(axis=1) <= at)).mean())
        assert false == pytest.approx((unknown <= at).any(axis=1).mean())


def test_figures_tell_good_embeddings_from_noise():
    labels = np.repeat(np.arange(40), 6)
    generator = np.random.default_rng(0)
    noise = generator.normal(size=(240, 8))
    good, poor = (v.figures((centres + noise).astype(np.float32), labels) for centres in (5 * noise[labels * 6], 0))
    assert good.keys() == {
        *("verification", "verification_error", "auc", "eer", "tar_at_1e-2", "tar_at_1e-3"),
        *("rank1", "rank5", "dir_at_1e-2"),
    }
    assert good["verification"] > 0.9 and good["rank1"] > 0.85 and good["auc"] > 0.97
    assert abs(poor["auc"] - 0.5) < 0.05 and abs(poor["rank1"] - 1 / 40) < 0.03 and abs(poor["eer"] - 0.5) < 0.05
    few = v.figures(noise[:40], np.repeat(np.arange(20), 2))  # 20 pictures of unknown people, 760 pairs of two
    assert "dir_at_1e-2" not in few and "tar_at_1e-3" not in few and "tar_at_1e-2" in few


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: v.roc(NEAR, np.ones(7, bool)), "7 pairs none is of two people"),
        (lambda: v.roc(NEAR[:0], SAME[:0]), "0 pairs none is of one person"),
        (lambda: v.roc(np.where(SAME, np.nan, NEAR), SAME), "7 distances, 3 are not finite; the first is nan"),
        (lambda: v.true_rate_at(v.roc(NEAR, SAME), 0.1), "takes 10 examples.* there are 4"),
        (lambda: v.threshold_at(v.roc(NEAR, SAME), 0.0), "above 0 and at most 1"),
        (lambda: v.ten_fold_accuracy(NEAR, SAME, np.zeros(7, int)), "two folds, not 1"),
        (lambda: v.ten_fold_accuracy(NEAR, SAME, np.int32(SAME)), "none is of"),
        (lambda: v.draw_pairs(np.arange(40)), "10 folds take two people or more each.*of 4 of the 40 people"),
        (lambda: v.draw_pairs(np.zeros(9, int)), "fold 0 has 9 pictures of 1 of the 1 people"),
        (lambda: v.ranks(np.ones((1, 2)), np.array([7]), np.array([1, 9])), "Person 7 .* no entry among 2 entries"),
        (lambda: v.ranks(np.ones((1, 0)), np.array([7]), np.zeros(0, int)), "Nobody is enrolled"),
        (lambda: v.cumulative_matches(np.zeros(0, int), 3), "no probe"),
        (lambda: v.open_set(np.ones((2, 1)), np.zeros(2, int), np.zeros(1, int), np.ones((0, 1))), "there are 2 and 0"),
        (lambda: v.figures(np.full((40, 2), np.inf), np.repeat(np.arange(20), 2)), "not finite"),
    ],
)
def test_what_cannot_be_measured_is_said(call, message):
    with pytest.raises(UserError, match=message):
        call()


def test_figures_of_curves_and_histograms_are_drawn():
    distances, same = drawn()
    rates = v.roc(distances, same)
    assert plots.draw_rates({"_a $": (rates.false, rates.true)}).std() > 0.05
    assert plots.draw_distances(distances, same, threshold=0.5).std() > 0.05
    assert plots.draw_distances(distances[same], same[same]).std() > 0.05
