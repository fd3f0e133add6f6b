"""Measures of embeddings and distances: are two pictures of one person, and who of those enrolled is this?

A pair is accepted as one person's if its distance is at most a threshold; whoever has scores, of which the greater are
the more alike, gives their negatives. Verification, of pairs: the protocol of Labeled Faces in the Wild (Huang et al.,
2007), ROC and what is read off it. Identification, of a probe among people enrolled: rank, cumulative match
characteristic and, where unknown people come too, the rate of detection and identification (Phillips, Grother &
Micheals, Evaluation Methods in Face Recognition, 2011).
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int, Integer

from cvjax.errors import UserError, number_of
from cvjax.metrics.neighbours import distance_tables

FOLDS, PAIRS = 10, 300  # of LFW: ten folds, each with 300 pairs of one person and 300 of two
PICTURES = 2000  # of a fold, and of those people, that are compared: tables of all pairs are kept in memory
PEOPLE = 100  # at most, in all pairs and as those enrolled of whom `figures` tells who it is
DRAWS = 10  # of those people and of their photographs
FALSE_RATES = {"1e-2": 1e-2, "1e-3": 1e-3}


class Rates(NamedTuple):
    """What is accepted as the threshold rises: nothing at first, in the end everything.

    Attributes:
      false, true: share accepted of what should be refused, and of what should be accepted.
      threshold: below which, or at which, a distance is accepted; the first is -inf.
      refusable: how many there are that should be refused: rates below its inverse cannot be measured.
    """

    false: Float[np.ndarray, " thresholds"]
    true: Float[np.ndarray, " thresholds"]
    threshold: Float[np.ndarray, " thresholds"]
    refusable: int


class FoldedAccuracy(NamedTuple):
    """Accuracies of folds, the threshold of each chosen on the others; their mean and its standard error."""

    mean: float
    standard_error: float
    accuracies: Float[np.ndarray, " folds"]
    thresholds: Float[np.ndarray, " folds"]


class Pairs(NamedTuple):
    """Pairs of pictures by index, whether they are of one person, and the fold they are in."""

    left: Int[np.ndarray, " pairs"]
    right: Int[np.ndarray, " pairs"]
    same: Bool[np.ndarray, " pairs"]
    fold: Int[np.ndarray, " pairs"]


# --- verification -------------------------------------------------------------------------------------------------


def roc(distances: Float[np.ndarray, " pairs"], same: Bool[np.ndarray, " pairs"]) -> Rates:
    """Returns false and true accept rates at every threshold that makes a difference.

    Equal distances are accepted together, so the curve has no order among them. Raises a UserError if a distance is
    not finite, or all pairs are of one kind.
    """
    distances = _finite(distances)
    kinds = {"one person": int(same.sum()), "two people": int((~same).sum())}
    for kind, count in kinds.items():
        if not count:
            raise UserError(f"Of {number_of(len(same), 'pair')} none is of {kind}; rates take pairs of both kinds.")
    thresholds, counts = _steps(distances, same, ~same)
    accepted, wrong = counts
    return Rates(wrong / kinds["two people"], accepted / kinds["one person"], thresholds, kinds["two people"])


def area(rates: Rates) -> float:
    """Returns the area below the true rate over the false one: of an ROC, the AUC.

    That is the probability that a pair of one person is nearer than one of two, equal distances counted half.
    """
    return float(np.trapezoid(rates.true, rates.false))


def equal_error_rate(rates: Rates) -> float:
    """Returns the rate at which as many are wrongly accepted as wrongly refused, interpolated between thresholds."""
    gap = rates.false - (1 - rates.true)  # rises from -1 to 1
    above = int(np.argmax(gap >= 0))
    share = -gap[above - 1] / (gap[above] - gap[above - 1])
    return float(rates.false[above - 1] + share * (rates.false[above] - rates.false[above - 1]))


def true_rate_at(rates: Rates, false_rate: float) -> float:
    """Returns the greatest true rate whose false rate is at most the given one: of an ROC, TAR at FAR.

    Nothing is interpolated: the figure is that of a threshold. Raises a UserError if there are too few examples to
    measure this false rate, such as 1e-3 by 500 pairs of two people.
    """
    return float(rates.true[_last_allowed(rates, false_rate)])


def threshold_at(rates: Rates, false_rate: float) -> float:
    """Returns the threshold of `true_rate_at`, half-way to the next distance that makes a difference.

    It is -inf if even the smallest distance is accepted wrongly too often. Raises a UserError as `true_rate_at` does.
    """
    return float(_between(rates.threshold)[_last_allowed(rates, false_rate)])


def best_threshold(distances: Float[np.ndarray, " pairs"], same: Bool[np.ndarray, " pairs"]) -> float:
    """Returns a threshold of greatest accuracy, half-way between two distances; of several, the middle one.

    Both kinds count alike, whatever their numbers: among all pairs, nearly all are of two people, and refusing
    everything would be best. Raises a UserError as `roc` does.
    """
    rates = roc(distances, same)
    right = rates.true + (1 - rates.false)
    best = np.flatnonzero(right > right.max() - 1e-12)  # rounding
    return float(_between(rates.threshold)[best[len(best) // 2]])


def ten_fold_accuracy(
    distances: Float[np.ndarray, " pairs"], same: Bool[np.ndarray, " pairs"], fold: Integer[np.ndarray, " pairs"]
) -> FoldedAccuracy:
    """Returns the accuracy by LFW's protocol, of any number of folds.

    For each fold the threshold is the `best_threshold` of all other folds, in which LFW has as many pairs of one person
    as of two. The standard error is the sample standard deviation of the folds' accuracies over the root of their
    number. Raises a UserError for fewer than two
    folds, or where those others have pairs of one kind only.

    Args:
      fold: number of each pair's fold; people should not be in two, as in `draw_pairs`.
    """
    distances, folds = _finite(distances), np.unique(fold)
    if len(folds) < 2:
        raise UserError(f"The threshold of a fold is chosen on others: it takes two folds, not {len(folds)}.")
    accuracies, thresholds = np.zeros(len(folds)), np.zeros(len(folds))
    for place, number in enumerate(folds):
        mine = fold == number
        thresholds[place] = best_threshold(distances[~mine], same[~mine])
        accuracies[place] = ((distances[mine] <= thresholds[place]) == same[mine]).mean()
    error = accuracies.std(ddof=1) / np.sqrt(len(folds))
    return FoldedAccuracy(float(accuracies.mean()), float(error), accuracies, thresholds)


def draw_pairs(
    labels: Integer[np.ndarray, " pictures"], folds: int = FOLDS, pairs: int = PAIRS, seed: int = 0
) -> Pairs:
    """Draws pairs as LFW's: nobody is in two folds, and a fold has the same number of pairs of one person and of two.

    People are drawn with equal probability, then pictures of them; no pair comes twice. Folds in which fewer than
    `pairs` of a kind exist have that number of both; of folds of more than 2,000 pictures, some of each person take
    part. Returns the pairs, fold by fold. Raises a UserError if a fold would have none.
    """
    generator = np.random.default_rng(seed)
    people, counts = np.unique(labels, return_counts=True)
    found = []
    several, single = (np.array_split(generator.permutation(people[kind]), folds) for kind in (counts > 1, counts == 1))
    for number, members in enumerate(map(np.append, several, reversed(single))):  # pairs of one person in each
        pictures = _some_of_each(generator, labels, np.flatnonzero(np.isin(labels, members)))
        first, second = np.triu_indices(len(pictures), k=1)
        left, right = pictures[first], pictures[second]
        same = labels[left] == labels[right]
        count = min(pairs, same.sum(), (~same).sum())
        if not count:
            raise UserError(
                f"{number_of(folds, 'fold')} take two people or more each, and two pictures of one of them; fold "
                f"{number} has {number_of(len(pictures), 'picture')} of {len(members)} of the {len(people)} people."
            )
        _, place, numbers = np.unique(labels[pictures], return_inverse=True, return_counts=True)
        sizes = numbers[place]
        others = np.where(same, sizes[second] - 1, sizes[second])  # times sizes[first]: pairs of these people
        lots = generator.exponential(size=len(left)) * sizes[first] * others  # the smallest: drawn, never twice
        for kind in (same, ~same):
            chosen = np.flatnonzero(kind)[np.argsort(lots[kind], kind="stable")[:count]]
            found.append((left[chosen], right[chosen], same[chosen], np.full(count, number)))
    return Pairs(*map(np.concatenate, zip(*found, strict=True)))


# --- identification -----------------------------------------------------------------------------------------------


def ranks(
    distances: Float[np.ndarray, "probes entries"],
    probes: Integer[np.ndarray, " probes"],
    entries: Integer[np.ndarray, " entries"],
) -> Int[np.ndarray, " probes"]:
    """Returns how many other people are as near to each probe as its own, or nearer: 0 if it is identified.

    A person is as near as the nearest of their entries. Equal distances count against the probe: a network of one
    answer for everything identifies nobody. Raises a UserError if a distance is not finite or a probe's person has no
    entry.

    Args:
      probes, entries: number of the person in each.
    """
    nearest, people = _by_person(_finite(distances), entries)
    own = np.searchsorted(people, probes).clip(max=len(people) - 1)
    absent = np.unique(probes[people[own] != probes])
    if len(absent):
        raise UserError(f"Person {absent[0]} is asked for and has no entry among {number_of(len(entries), 'entry')}.")
    mine = np.take_along_axis(nearest, own[:, None], axis=1)
    return (nearest <= mine).sum(axis=1) - 1  # their own is among them


def cumulative_matches(ranks: Integer[np.ndarray, " probes"], depth: int) -> Float[np.ndarray, " depth"]:
    """Returns the share of probes whose person is among the nearest 1, 2, ..., `depth`: the CMC, rank-1 first."""
    if not len(ranks):
        raise UserError("There is no probe to identify.")
    return (ranks[:, None] <= np.arange(depth)).mean(axis=0)


def open_set(
    known: Float[np.ndarray, "probes entries"],
    probes: Integer[np.ndarray, " probes"],
    entries: Integer[np.ndarray, " entries"],
    unknown: Float[np.ndarray, "others entries"],
) -> Rates:
    """Returns detection and identification rates over false alarm rates, as the threshold rises.

    A probe of a person with entries counts if their own are the nearest of all, and at most the threshold away; a
    picture of anybody else is a false alarm if any entry is. Raises a UserError as `ranks` does, or if there are no
    such pictures or no probes.

    Args:
      known: distances to the entries of probes of people who have one.
      probes, entries: as in `ranks`.
      unknown: distances of pictures of others.
    """
    if not len(known) or not len(unknown):
        raise UserError(
            f"An open set has probes of people with entries and of others; there are {len(known)} and {len(unknown)}."
        )
    first, alarms = ranks(known, probes, entries) == 0, _finite(unknown).min(axis=1)
    distances = np.concatenate([np.asarray(known, np.float64).min(axis=1), alarms])
    right, wrong = np.append(first, np.zeros(len(alarms), bool)), np.arange(len(distances)) >= len(first)
    thresholds, (identified, alarmed) = _steps(distances, right, wrong)
    return Rates(alarmed / len(alarms), identified / len(first), thresholds, len(alarms))


# --- figures of embeddings ----------------------------------------------------------------------------------------


def figures(
    embeddings: Float[np.ndarray, "pictures features"], labels: Integer[np.ndarray, " pictures"], seed: int = 0
) -> dict[str, float]:
    """Measures embeddings of people by Euclidean distances; squared ones have the same figures.

    Returns `verification` and `verification_error`, mean and standard error of `ten_fold_accuracy` on `draw_pairs`. Of
    all pairs of 100 people and 2,000 pictures, or fewer: `auc`, `eer`, `tar_at_1e-2`, `tar_at_1e-3`. Of these people,
    with one picture of each enrolled and all others to be identified: `rank1` and, of more than five people, `rank5`;
    with half of the people enrolled, `dir_at_1e-2`; means over ten draws of the enrolled. Rates that too few examples
    can measure are left out. Raises a UserError if an embedding is not finite, or there are too few people or pictures.
    """
    embeddings = np.asarray(embeddings)
    if not np.isfinite(embeddings).all():
        raise UserError("An embedding is not finite.")
    pairs = draw_pairs(labels, seed=seed)
    folded = ten_fold_accuracy(pair_distances(embeddings, pairs.left, pairs.right), pairs.same, pairs.fold)
    found = {"verification": folded.mean, "verification_error": folded.standard_error}
    generator = np.random.default_rng(seed)
    chosen = np.flatnonzero(np.isin(labels, generator.permutation(np.unique(labels))[:PEOPLE]))
    chosen = _some_of_each(generator, labels, chosen)
    labels, table = labels[chosen], np.concatenate(list(distance_tables(embeddings[chosen], embeddings[chosen])))
    left, right = np.triu_indices(len(table), k=1)
    rates = roc(table[left, right], labels[left] == labels[right])
    found |= {"auc": area(rates), "eer": equal_error_rate(rates)}
    found |= _rates_at("tar_at", rates)
    draws = [_identify(table, labels, generator) for _ in range(DRAWS)]
    return found | {name: float(np.mean([draw[name] for draw in draws])) for name in draws[0]}


def pair_distances(
    embeddings: Float[np.ndarray, "pictures features"],
    left: Integer[np.ndarray, " pairs"],
    right: Integer[np.ndarray, " pairs"],
) -> Float[np.ndarray, " pairs"]:
    """Returns the Euclidean distance of each pair, in float64."""
    parts = np.array_split(np.stack([left, right], axis=1), max(1, len(left) // 1000))  # pixels have many features
    gaps = (embeddings[part[:, 0]].astype(np.float64) - embeddings[part[:, 1]] for part in parts)
    return np.concatenate([np.sqrt(np.square(gap).sum(axis=1)) for gap in gaps])


def _identify(table: np.ndarray, labels: np.ndarray, generator: np.random.Generator) -> dict[str, float]:
    """Figures of one draw of the picture that is enrolled of each person."""
    order = generator.permutation(len(labels))
    people, first = np.unique(labels[order], return_index=True)
    enrolled = order[first]
    probes = np.setdiff1d(np.arange(len(labels)), enrolled)
    if len(people) < 2 or not len(probes):
        raise UserError(f"{number_of(len(labels), 'picture')} of {len(people)} people: there is nobody to tell apart.")
    matches = cumulative_matches(ranks(table[np.ix_(probes, enrolled)], labels[probes], people), 5)
    found = {"rank1": matches[0]} | ({"rank5": matches[4]} if len(people) > 5 else {})
    half = generator.permutation(len(people))[: len(people) // 2]
    inside = np.isin(labels, people[half])
    known, unknown = (table[np.ix_(rows, enrolled[half])] for rows in (probes[inside[probes]], np.flatnonzero(~inside)))
    if len(known):
        found |= _rates_at("dir_at", open_set(known, labels[probes[inside[probes]]], people[half], unknown), ["1e-2"])
    return found


def _rates_at(prefix: str, rates: Rates, names: Sequence[str] = tuple(FALSE_RATES)) -> dict[str, float]:
    """The true rates at those false rates that the examples can measure."""
    measurable = [name for name in names if _measurable(rates, FALSE_RATES[name])]
    return {f"{prefix}_{name}": true_rate_at(rates, FALSE_RATES[name]) for name in measurable}


# --- beneath ------------------------------------------------------------------------------------------------------


def _some_of_each(generator: np.random.Generator, labels: np.ndarray, pictures: np.ndarray) -> np.ndarray:
    """The pictures, by index; of more than `PICTURES`, about that number, at least two of each person."""
    if len(pictures) <= PICTURES:
        return pictures
    shuffled = generator.permutation(pictures)
    shuffled = shuffled[np.argsort(labels[shuffled], kind="stable")]
    ordered = labels[shuffled]
    places = np.arange(len(ordered)) - np.searchsorted(ordered, ordered)
    return np.sort(shuffled[places < max(2, PICTURES // len(np.unique(ordered)))])


def _finite(distances: np.ndarray) -> np.ndarray:
    distances = np.asarray(distances, np.float64)
    broken = np.flatnonzero(~np.isfinite(distances))
    if len(broken):
        value, total = distances.flat[broken[0]], number_of(distances.size, "distance")
        raise UserError(f"Of {total}, {len(broken)} are not finite; the first is {value}.")
    return distances


def _steps(distances: np.ndarray, *kinds: np.ndarray) -> tuple[np.ndarray, list[np.ndarray]]:
    """Distinct thresholds from -inf up, and the number of each kind at or below each of them."""
    order = np.argsort(distances, kind="stable")
    ordered = distances[order]
    last = np.append(np.flatnonzero(ordered[1:] != ordered[:-1]), len(ordered) - 1)
    return np.append(-np.inf, ordered[last]), [np.append(0, np.cumsum(kind[order])[last]) for kind in kinds]


def _between(thresholds: np.ndarray) -> np.ndarray:
    """Thresholds that accept the same, each half-way to the next; distances may be computed in another order."""
    return np.append((thresholds[:-1] + thresholds[1:]) / 2, thresholds[-1])


def _measurable(rates: Rates, false_rate: float) -> bool:
    return rates.refusable * false_rate > 1 - 1e-9


def _last_allowed(rates: Rates, false_rate: float) -> int:
    """The last threshold with a false rate of at most `false_rate`."""
    if not 0 < false_rate <= 1:
        raise UserError(f"A false accept rate of {false_rate:g}: above 0 and at most 1.")
    if not _measurable(rates, false_rate):
        raise UserError(
            f"A false accept rate of {false_rate:g} takes {int(np.ceil(1 / false_rate - 1e-9)):,} examples that should "
            f"be refused, or more; there are {rates.refusable:,}."
        )
    return int(np.searchsorted(rates.false, false_rate * (1 + 1e-12), side="right")) - 1


def _by_person(distances: np.ndarray, entries: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Distances [probes, people] to the nearest entry of each person, and the people's numbers in order."""
    if not len(entries):
        raise UserError("Nobody is enrolled.")
    order = np.argsort(entries, kind="stable")
    people, first = np.unique(entries[order], return_index=True)
    return np.minimum.reduceat(distances[:, order], first, axis=1), people
