"""Batches of P classes with K examples each, `data.per_class=K`, as functions of the labels, the seed and the step.

As for the triplets of Hermans, Beyer & Leibe, In Defense of the Triplet Loss, 2017 (arXiv:1703.07737), section 2.
"""

import functools
import math
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

CLASSES, MEMBERS = 3, 4  # streams of random numbers, beside those of `cvjax.data.batches` and `cvjax.data.joint`


def members(labels: Int[np.ndarray, " examples"]) -> tuple[Int[np.ndarray, " _"], ...]:
    """Returns the indices of each class's examples, ordered by label; classes without examples are left out."""
    order = np.argsort(labels, kind="stable")
    return tuple(np.split(order, np.flatnonzero(np.diff(labels[order])) + 1))


@functools.lru_cache(maxsize=256)  # an order lasts for many batches
def grouped_order(count: int, group: int, seed: tuple[int, ...], epoch: int) -> Int[np.ndarray, " count"]:
    """Returns an epoch's permutation of `count` items, for a stream read in groups that never hold an item twice.

    `group` is at most `count`. Where a group straddles two epochs, the second depends on the first, back to the last
    epoch that starts a group.
    """
    period = group // math.gcd(count, group)
    order = np.arange(count)
    for current in range(epoch - epoch % period, epoch + 1):
        drawn = np.random.default_rng((*seed, current)).permutation(count)
        shared = current * count % group  # places of this epoch's first group that the previous epoch filled
        if shared:
            first, fresh = np.zeros(count, bool), np.ones(count, bool)
            fresh[order[-shared:]] = False
            first[np.flatnonzero(fresh[drawn])[: group - shared]] = True
            drawn = np.concatenate([drawn[first], drawn[~first]])
        order = drawn
    order.flags.writeable = False  # it is shared
    return order


def indices(
    classes: Sequence[Int[np.ndarray, " _"]], per_class: int, batch: int, seed: int, step: int
) -> Int[np.ndarray, " batch"]:
    """Returns the examples of a batch, class by class; `classes` has the indices of each class's examples.

    Each epoch of classes visits every class once, and the visits to a class go through its examples in epochs too. A
    batch has no class twice, so at least batch / per_class classes are needed. A class with fewer than `per_class`
    examples repeats all of them about equally often.
    """
    group, count = batch // per_class, len(classes)
    chosen = []
    for position in range(step * group, (step + 1) * group):
        epoch, place = divmod(position, count)
        drawn = int(grouped_order(count, group, (seed, CLASSES), epoch)[place])
        examples = classes[drawn]
        chosen.append(examples[_visit(len(examples), per_class, (seed, MEMBERS, drawn), epoch)])
    return np.concatenate(chosen)


def _visit(count: int, per_class: int, seed: tuple[int, ...], number: int) -> Int[np.ndarray, " per_class"]:
    """Chooses the examples for one visit to a class with `count` of them."""
    repeats, group = divmod(per_class, count)
    places = np.arange(group) + number * group
    epochs = range(number * group // count, (number * group + group - 1) // count + 1) if group else ()
    orders = [grouped_order(count, group, seed, epoch)[places[places // count == epoch] % count] for epoch in epochs]
    return np.concatenate([np.tile(np.arange(count), repeats), *orders])
