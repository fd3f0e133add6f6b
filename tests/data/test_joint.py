"""A second source: independent of the first in order and length, and as exact as it in resuming and sharding."""

import itertools
import json

import jax
import numpy as np
import pytest
from PIL import Image

from cvjax import config as experiments
from cvjax import data, fit, sharding
from cvjax.core import Recipe, start
from cvjax.errors import UserError

RANDOM = (dict(op="random_shift", pixels=1), dict(op="rotate", degrees=20.0))


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Makes a folder of 23 training and 7 test images; every pixel of image i is 10 i."""
    root = tmp_path_factory.mktemp("photos")
    for split, numbers in (("train", range(1, 24)), ("test", range(1, 8))):
        (root / split).mkdir()
        for number in numbers:
            Image.fromarray(np.full((6, 5, 3), 10 * number, np.uint8)).save(root / split / f"{number}.png")
    return str(root)


def load(photos, seed=0, process=(0, 1), also=(), **settings):
    chosen = {"name": "digits", "batch": 12, "also": {"folder": photos, **dict(also)}, **settings}
    return data.load(chosen, seed=seed, process_index=process[0], process_count=process[1])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_the_second_source_has_keys_an_order_and_a_length_of_its_own(photos):
    loaded = load(photos)
    batches = take(loaded.train(), 23)
    assert {key: value.shape for key, value in batches[0].items()} == {
        "image": (12, 8, 8, 1),
        "label": (12,),
        "also_image": (12, 6, 5, 3),
    }
    numbers = np.concatenate([batch["also_image"][:, 0, 0, 0] for batch in batches]) * 25.5
    epochs = np.round(numbers).astype(int).reshape(12, 23)  # as long as 12 passes over the second source
    assert all(sorted(epoch) == list(range(1, 24)) for epoch in epochs)
    assert len({tuple(epoch) for epoch in epochs}) == 12
    assert loaded.info["also"]["examples"] == {"train": 23, "test": 7}
    assert loaded.info["also"]["shape"] == (6, 5, 3)


def test_the_first_source_is_as_without_a_second(photos):
    alone = data.load({"name": "digits", "batch": 12, "transforms": RANDOM}, seed=3)
    both = take(load(photos, seed=3, transforms=RANDOM).train(), 5)
    first = [{key: value for key, value in batch.items() if not key.startswith("also_")} for batch in both]
    assert_same(first, take(alone.train(), 5))


def test_two_sources_over_the_same_examples_are_not_in_step():
    same = data.load({"name": "digits", "batch": 64, "also": {"name": "digits"}}, seed=0)
    batches = take(same.train(), 20)
    agree = np.mean([batch["label"] == batch["also_label"] for batch in batches])
    assert abs(agree - 0.1) < 0.04  # four standard errors around chance


def test_memory_disk_and_workers_give_the_same_batches(photos):
    also = {"transforms": RANDOM}
    memory = load(photos, also=also, transforms=RANDOM)
    expected = take(memory.train(), 6)
    mixed = load(photos, also={**also, "in_memory": False}, transforms=RANDOM, workers=1)
    assert_same(expected, take(mixed.train(), 6))
    disk = load(photos, also={**also, "in_memory": False}, transforms=RANDOM, in_memory=False)
    assert_same(expected, take(disk.train(), 6))
    assert_same(memory.evaluate(), disk.evaluate())


def test_an_interruption_continues_both_exactly(photos):
    settings = dict(also={"transforms": RANDOM, "in_memory": False}, transforms=RANDOM)
    straight = take(load(photos, **settings).train(), 9)
    train = load(photos, **settings).train()
    take(train, 5)
    state = json.loads(json.dumps(train.get_state()))
    again = load(photos, **settings).train()
    take(again, 2)
    again.set_state(state)
    assert_same(take(again, 4), straight[5:])
    with pytest.raises(UserError, match=r"also_examples was 23 .* and is 7 now"):
        load(photos, also={"train_split": "test"}).train().set_state(state)
    with pytest.raises(UserError, match=r"also_batch was 12 .* and is None now"):
        data.load({"name": "digits", "batch": 12}, seed=0).train().set_state(state)


def test_processes_share_the_batches_that_one_would_have(photos):
    alone = load(photos, also={"transforms": RANDOM})
    parts = [load(photos, process=(index, 3), also={"transforms": RANDOM}) for index in range(3)]

    def joined(iterators):
        for batches in zip(*iterators, strict=True):
            yield {key: np.concatenate([batch[key] for batch in batches]) for key in batches[0]}

    assert_same(take(alone.train(), 6), joined([take(part.train(), 6) for part in parts]))
    assert_same(alone.evaluate(), joined([part.evaluate() for part in parts]))


@pytest.mark.parametrize("longer", ["first", "second"])
def test_evaluation_counts_each_example_of_both_once(photos, longer):
    """As unpaired translation is judged: a figure of each domain, over all of its test images."""
    loaded = load(photos, eval_split="test[:30]" if longer == "first" else "test[:5]", batch=4)
    counts = {"first": 30, "second": 7} if longer == "first" else {"first": 5, "second": 7}
    assert len(list(loaded.evaluate())) == -(-max(counts.values()) // 4)

    def score(rows):
        rows = list(rows)
        assert all(len(inputs["image"]) == len(outputs["level"]) for inputs, outputs in rows)
        first = np.concatenate([outputs["level"] for _, outputs in rows])
        second = np.concatenate([outputs["also_level"] for _, outputs in rows])
        return {"count": len(first), "level": first.mean(), "also_count": len(second), "also_level": second.mean()}

    def eval_step(state, batch, index):
        return {"level": batch["image"].mean((1, 2, 3)), "also_level": batch["also_image"].mean((1, 2, 3))}

    def unused(*args):
        raise AssertionError

    mesh = sharding.make_mesh({"data": 1}, jax.devices()[:1])
    state = start({}, {})
    figures = fit.evaluate(Recipe({}, unused, unused, eval_step, score, unused), eval_step, state, loaded, mesh)
    assert figures["count"] == counts["first"]
    assert figures["also_count"] == 7
    assert figures["level"] == pytest.approx(data.arrays("digits", "test")["image"][: counts["first"]].mean(), rel=1e-5)
    assert figures["also_level"] == pytest.approx(np.mean([10 * number / 255 for number in range(1, 8)]), rel=1e-5)


@pytest.mark.parametrize(
    ("also", "message"),
    [
        ({"folder": "nowhere"}, "data.also: data.folder='nowhere'"),
        ({"name": "digits", "batch": 4}, "data.also.batch follows data.batch"),
        ({"name": "digits", "also": {"name": "digits"}}, "data.also.also follows"),
        ({"nme": "digits"}, "data.also: config.data.nme: there is no such key. Did you mean 'name'"),
        ("digits", "data.also='digits': expected Mapping"),
        ({"name": "digits", "transforms": [dict(op="crp")]}, r"data.also: data.transforms\[0\].*'crop'"),
    ],
)
def test_a_mistake_in_it_is_named(also, message):
    with pytest.raises(UserError, match=message):
        data.check({"name": "digits", "also": also})


def test_a_config_has_every_key_of_the_second_source(photos):
    settings = dict(name="digits", also=dict(folder=photos))
    config = experiments.experiment("generative.autoencoders.vae", recipe=dict(shape=(8, 8, 1)), data=settings)
    config.data.also.train_split = "test"
    config.data.also.max_boxes = None
    experiments.check(config)
    assert experiments.as_dict(config)["data"]["also"]["folder"] == photos
    with pytest.raises(AttributeError):
        config.data.also.batch = 3
