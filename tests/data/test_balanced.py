"""Batches of P classes with K examples each: their arithmetic, and that the loader keeps its promises with them."""

import itertools
import json

import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import balanced, catalogue, sources
from cvjax.data.folder import open_split
from cvjax.errors import UserError

SIZES = [1, 2, 3, 4, 5, 6, 7, 8, 9, 20]
LABELS = np.random.default_rng(0).permutation(np.repeat(np.arange(10), SIZES))


def stream(batch, per_class, steps, seed=0, labels=LABELS):
    """Makes batches as [steps, classes, per_class] of indices."""
    classes = balanced.members(labels)
    made = [balanced.indices(classes, per_class, batch, seed, step) for step in range(steps)]
    return np.reshape(made, (steps, batch // per_class, per_class))


@pytest.mark.parametrize(("batch", "per_class"), [(40, 4), (32, 4), (21, 3), (30, 5), (8, 8), (6, 1)])
def test_a_batch_has_as_many_examples_of_each_of_its_classes(batch, per_class):
    for groups in stream(batch, per_class, 40):
        labels = LABELS[groups]
        assert (labels == labels[:, :1]).all()
        assert len(set(labels[:, 0])) == batch // per_class  # no class twice, at the ends of epochs neither
        for group, label in zip(groups, labels[:, 0], strict=True):
            counts = np.bincount(group, minlength=65)[label == LABELS]
            assert counts.max() - counts.min() <= 1  # a class with K examples or more has none twice
            assert counts.sum() == per_class


@pytest.mark.parametrize(("batch", "per_class"), [(40, 4), (32, 4), (21, 3)])
def test_an_epoch_visits_every_class_once_and_a_class_its_examples(batch, per_class):
    groups = stream(batch, per_class, 200).reshape(-1, per_class)
    visited = LABELS[groups[:, 0]]
    epochs = visited[: len(visited) // 10 * 10].reshape(-1, 10)
    np.testing.assert_array_equal(np.sort(epochs, axis=1), np.broadcast_to(np.arange(10), epochs.shape))
    assert len({tuple(epoch) for epoch in epochs}) > 0.95 * len(epochs)
    for label in np.unique(LABELS):
        examples = groups[visited == label].ravel()
        counts = np.bincount(examples, minlength=65)[label == LABELS]
        assert counts.max() - counts.min() <= max(1, per_class // len(counts))


def test_classes_meet_one_another_evenly():
    groups = LABELS[stream(8, 1, 500)[:, :, 0]]
    together = np.zeros((10, 10))
    for classes in groups:
        together[np.ix_(classes, classes)] += 1
    off = together[~np.eye(10, dtype=bool)] / 500
    assert abs(off - 8 * 7 / 90).max() < 0.1  # five standard errors


def test_a_step_alone_decides():
    whole = stream(32, 4, 30)
    classes = balanced.members(LABELS)
    balanced.grouped_order.cache_clear()
    np.testing.assert_array_equal(balanced.indices(classes, 4, 32, 0, 23).reshape(8, 4), whole[23])
    assert not np.array_equal(stream(32, 4, 1, seed=1), whole[:1])


# --- the loader ---------------------------------------------------------------------------------------------------


def load(seed=0, process=(0, 1), **settings):
    chosen = {
        "name": "digits",
        "batch": 48,
        "per_class": 8,
        "transforms": [dict(op="random_shift", pixels=1)],
        **settings,
    }
    return data.load(chosen, seed=seed, process_index=process[0], process_count=process[1])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            np.testing.assert_array_equal(left[key], right[key])


def test_the_loader_gives_the_examples_of_the_arithmetic():
    train = data.arrays("digits", "train")
    for step, batch in enumerate(take(load(transforms=()).train(), 4)):
        chosen = balanced.indices(balanced.members(train["label"]), 8, 48, 0, step)
        np.testing.assert_array_equal(batch["image"], train["image"][chosen])
        np.testing.assert_array_equal(batch["label"], train["label"][chosen])
    assert sum(batch["valid"].sum() for batch in load().evaluate()) == 500  # evaluation is as ever


def test_memory_disk_and_workers_give_the_same_batches():
    expected = take(load().train(), 6)
    assert_same(expected, take(load(in_memory=False).train(), 6))
    assert_same(expected[:3], take(load(in_memory=False, workers=1).train(), 3))


def test_an_interrupted_iterator_continues_exactly_where_it_was():
    straight = take(load().train(), 9)
    train = load().train()
    take(train, 5)
    state = json.loads(json.dumps(train.get_state()))
    again = load(in_memory=False).train()
    again.set_state(state)
    assert_same(take(again, 4), straight[5:])
    with pytest.raises(UserError, match=r"per_class was 8 .* and is 6 now"):
        load(per_class=6).train().set_state(state)


def test_processes_share_the_batches_that_one_would_have():
    parts = [take(load(process=(index, 4)).train(), 5) for index in range(4)]
    assert_same(
        take(load().train(), 5),
        ({key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)),
    )


def test_labels_are_read_without_images(tmp_path):
    for number in range(12):
        path = tmp_path / "train" / "abc"[number % 3] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("not an image") if number == 5 else Image.new("L", (3, 3), number).save(path)
    source = open_split(tmp_path, "train")
    assert sources.read_labels(source).tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert sources.read_labels(sources.Subset(source, [0, 11, 5])).tolist() == [0, 2, 1]
    digits = catalogue.open_split("digits", "test")
    np.testing.assert_array_equal(sources.read_labels(digits), data.arrays("digits", "test")["label"])
    decoded = sources.Decoded(digits, [digits[0], digits[1]])
    assert sources.read_labels(decoded).tolist() == sources.read_labels(digits)[:2].tolist()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"per_class": 5}, "data.per_class=5 must be a divisor of data.batch=48"),
        ({"per_class": 0}, "data.per_class=0: expected int at least 1"),
        ({"per_class": 4}, "a batch of 48 would have 12 classes, but digits has 10. Set data.batch to 40 or less"),
        ({"name": "digit_scenes/smoke"}, "data.per_class=8: the examples of digit_scenes/smoke have no labels"),
    ],
)
def test_a_mistake_is_named(settings, message):
    with pytest.raises(UserError, match=message):
        data.check({"name": "digits", "batch": 48, "per_class": 8, **settings})


def test_a_slice_may_have_fewer_classes_than_a_batch():
    with pytest.raises(UserError, match="would have 6 classes, but digits has 2"):
        load(train_split="train[:2]", transforms=())
