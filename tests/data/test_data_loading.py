"""Batches: exact epochs, the same on every number of processes, after every interruption, from memory or from disk."""

import itertools
import json
import time

import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data.batches import permutation, to_float
from cvjax.errors import UserError

RANDOM = (dict(op="random_shift", pixels=1), dict(op="rotate", degrees=20.0))
FEW = dict(train_split="train[:200]", eval_split="test[:70]")  # what is slow to transform, over two passes all the same


def load(seed=0, process=(0, 1), **settings):
    settings = {"name": "digits", "batch": 64, **settings}
    return data.load(settings, seed=seed, process_index=process[0], process_count=process[1])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def same(first, second):
    pairs = list(zip(first, second, strict=True))
    assert pairs
    for left, right in pairs:
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_batches_are_float_images_and_int_labels():
    loaded = load()
    batch = next(loaded.train())
    assert {key: (value.shape, value.dtype) for key, value in batch.items()} == {
        "image": ((64, 8, 8, 1), np.float32),
        "label": ((64,), np.int32),
    }
    assert batch["image"].min() == 0
    assert batch["image"].max() == 1
    assert loaded.info == {
        "name": "digits",
        "classes": tuple("0123456789"),
        "examples": {"train": 1297, "test": 500},
        "shape": (8, 8, 1),
    }


@pytest.mark.parametrize("settings", [{}, {"in_memory": False}])
def test_each_epoch_visits_every_example_once_in_an_order_of_its_own(settings):
    everything = data.arrays("digits", "train")["image"].reshape(1297, -1)
    batches = take(load(**settings).train(), 61)  # 3 epochs and 13 examples
    stream = np.concatenate([batch["image"] for batch in batches]).reshape(-1, 64)
    epochs = [stream[1297 * epoch : 1297 * (epoch + 1)] for epoch in range(3)]
    for epoch in epochs:
        np.testing.assert_array_equal(np.sort(epoch, axis=0), np.sort(everything, axis=0))
        assert np.unique(epoch, axis=0).shape == np.unique(everything, axis=0).shape
    assert not np.array_equal(epochs[0], epochs[1])


def test_a_batch_may_be_larger_than_the_dataset():
    batch = next(load(train_split="test[:30]", batch=64).train())
    assert batch["image"].shape[0] == 64
    np.testing.assert_array_equal(np.sort(batch["label"][:30]), np.sort(batch["label"][30:60]))


def test_the_seed_alone_decides_the_order():
    same(take(load(seed=1).train(), 3), take(load(seed=1).train(), 3))
    assert not np.array_equal(next(load(seed=1).train())["label"], next(load(seed=2).train())["label"])


@pytest.mark.parametrize(
    "settings", [{}, dict(transforms=RANDOM, **FEW), dict(transforms=(dict(op="resize", size=(6, 6)), *RANDOM), **FEW)]
)
def test_memory_and_disk_give_the_same_batches(settings):
    memory, disk = (load(in_memory=where, **settings) for where in (True, False))
    count = 6 if settings else 25  # more than one pass
    same(take(memory.train(), count), take(disk.train(), count))
    same(memory.evaluate(), disk.evaluate())


def test_random_transforms_change_from_epoch_to_epoch():
    batches = take(load(transforms=RANDOM, train_split="train[:64]").train(), 2)
    first, second = (batch["image"][np.argsort(batch["label"], kind="stable")] for batch in batches)
    assert not np.array_equal(np.sort(first.ravel()), np.sort(second.ravel()))


@pytest.mark.parametrize("settings", [{}, dict(transforms=RANDOM, batch=8, **FEW)])
def test_an_interrupted_iterator_continues_exactly_where_it_was(settings):
    straight = take(load(**settings).train(), 30)
    train = load(**settings).train()
    take(train, 19)  # well past what is prefetched
    state = json.loads(json.dumps(train.get_state()))
    again = load(in_memory=False, **settings).train()
    next(again)
    again.set_state(state)
    same(take(again, 11), straight[19:])
    assert again.get_state()["step"] == 30


def test_a_state_of_other_data_is_refused():
    state = load().train().get_state()
    with pytest.raises(UserError, match=r"examples was 1297 .* and is 100 now"):
        load(train_split="train[:100]").train().set_state(state)
    with pytest.raises(UserError, match="seed was 0"):
        load(seed=3).train().set_state(state)


@pytest.mark.parametrize("random", [{}, dict(transforms=RANDOM, **FEW)])
def test_processes_share_the_batches_that_one_would_have(random):
    settings = dict(batch=48, eval_batch=96, **random)
    alone = load(**settings)
    parts = [load(process=(index, 3), **settings) for index in range(3)]

    def joined(iterators):
        for batches in zip(*iterators, strict=True):
            yield {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    count = 9 if random else 30  # two passes, or one and a bit
    same(take(alone.train(), count), joined([take(part.train(), count) for part in parts]))
    same(alone.evaluate(), joined([part.evaluate() for part in parts]))
    with pytest.raises(UserError, match=r"48 .* cannot be divided among 5"):
        load(process=(0, 5), **settings)


@pytest.mark.parametrize("in_memory", [True, False])
def test_evaluation_is_one_exact_pass_in_order(in_memory):
    batches = list(load(eval_batch=128, in_memory=in_memory).evaluate())
    assert [batch["valid"].sum() for batch in batches] == [128, 128, 128, 116]
    assert {batch["image"].shape for batch in batches} == {(128, 8, 8, 1)}
    reference = data.arrays("digits", "test")
    for key in ("image", "label"):
        rows = np.concatenate([batch[key][batch["valid"]] for batch in batches])
        np.testing.assert_array_equal(rows, reference[key])


def test_arrays_are_kept_and_cannot_be_written_to():
    first = data.arrays("digits", "test")
    assert first is data.arrays("digits", "test")
    with pytest.raises(ValueError, match="read-only"):
        first["image"][0] = 0
    batch = next(load().train())
    batch["image"][:] = 0  # a batch is the caller's own
    assert data.arrays("digits", "train")["image"].max() == 1


def test_a_batch_of_digits_is_gathered_in_a_fraction_of_a_millisecond():
    train = load().train()
    take(train, 100)
    times = []
    for _ in range(200):
        start = time.perf_counter()
        next(train)
        times.append(time.perf_counter() - start)
    assert min(times) < 3e-4  # 2e-5 on an idle core; Grain, record by record, takes 3e-3


def test_workers_give_the_same_batches_and_say_what_is_wrong_as_the_process_itself_would(tmp_path):
    for index in range(8):
        Image.fromarray(np.full((6, 6, 3), index, np.uint8)).save(tmp_path / f"{index}.png")
    settings = dict(name=None, folder=str(tmp_path), transforms=RANDOM, in_memory=False, train_split="train", batch=5)
    with_workers = load(workers=2, **settings).train()
    same(take(with_workers, 5), take(load(**settings).train(), 5))
    state = with_workers.get_state()
    (tmp_path / "3.png").write_text("no image")
    with_workers.set_state(state)
    with pytest.raises(UserError, match=r"3\.png cannot be read"):
        take(with_workers, 4)


@pytest.mark.parametrize(("dtype", "white"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
def test_white_is_one_in_every_depth(dtype, white):
    image = to_float(np.array([[[0], [white]]], dtype))
    assert image.dtype == np.float32
    np.testing.assert_array_equal(image.ravel(), [0, 1])


def test_orders_are_shared_and_fixed():
    assert sorted(permutation(100, 0, 0)) == list(range(100))
    assert not np.array_equal(permutation(100, 0, 0), permutation(100, 0, 1))
    with pytest.raises(ValueError, match="read-only"):
        permutation(100, 0, 0)[0] = 1
