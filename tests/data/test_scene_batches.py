"""Batches with boxes and maps: the same from memory and disk, on every number of processes, after interruptions."""

import itertools
import json

import numpy as np
import pytest

from cvjax import data
from cvjax.data import pipeline
from cvjax.data.annotations import Annotations
from cvjax.data.batches import Batches, transformed

# What comes before the first random one is done once where the examples are in memory.
TRANSFORMS = (
    dict(op="resize", size=(56, 60)),
    dict(op="random_scale", scale=(0.7, 1.4), keep=0.5),
    dict(op="mosaic", p=0.5, keep=0.5),
    dict(op="color_jitter", brightness=0.2, hue=0.1),
    dict(op="flip"),
    dict(op="random_shift", pixels=5),
)


def load(seed=0, process=(0, 1), **settings):
    chosen = {"name": "digit_scenes/smoke", "batch": 12, "max_boxes": 20, "keep": ("class_map", "instances")}
    chosen |= {"transforms": TRANSFORMS, **settings}
    return data.load(chosen, seed=seed, process_index=process[0], process_count=process[1])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_batches_have_boxes_and_maps_that_agree():
    for batch in take(load().train(), 6):
        assert batch["image"].shape == (12, 56, 60, 3)
        assert batch["instances"].shape == batch["class_map"].shape == (12, 56, 60)
        assert batch["instances"].dtype == batch["class_map"].dtype == np.int32
        assert batch["mask"].sum() > 12
        for row, present in enumerate(batch["mask"].sum(1)):
            assert batch["mask"][row, :present].all()
            instances = batch["instances"][row]
            assert instances.max() <= present
            for box in range(present):
                ys, xs = np.nonzero(instances == box + 1)
                if len(ys):  # three times the nearest pixel was taken, half a pixel off at most, of up to 1.4 new ones
                    x1, y1, x2, y2 = batch["boxes"][row, box]
                    assert x1 - 2.1 < xs.min() and xs.max() + 1 < x2 + 2.1
                    assert y1 - 2.1 < ys.min() and ys.max() + 1 < y2 + 2.1
                    assert (batch["class_map"][row][ys, xs] == 1 + batch["labels"][row, box]).all()


def test_memory_disk_and_workers_give_the_same_batches():
    memory = load(in_memory=True)
    expected = take(memory.train(), 8)
    disk = load(in_memory=False)
    assert_same(expected, take(disk.train(), 8))
    assert_same(memory.evaluate(), disk.evaluate())
    assert_same(expected[:4], take(load(in_memory=False, workers=2).train(), 4))


def test_processes_share_the_batches_that_one_would_have():
    expected = take(load().train(), 8)
    parts = [take(load(process=(index, 3)).train(), 8) for index in range(3)]
    assert_same(
        expected,
        ({key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)),
    )


def test_an_interrupted_iterator_continues_exactly_where_it_was():
    straight = take(load().train(), 9)
    train = load().train()
    take(train, 5)
    state = json.loads(json.dumps(train.get_state()))
    again = load(in_memory=False).train()
    again.set_state(state)
    assert_same(take(again, 4), straight[5:])


def test_the_seed_and_the_epoch_change_what_is_drawn():
    alone = load(train_split="train[:12]", keep=())
    first, second = take(alone.train(), 2)
    assert not np.array_equal(np.sort(first["image"].ravel()), np.sort(second["image"].ravel()))
    assert not np.array_equal(first["boxes"], take(load(1, train_split="train[:12]", keep=()).train(), 1)[0]["boxes"])


class Greys:
    """Each example is of a grey level of its own and has one box."""

    name, classes = "greys", ()

    def __len__(self):
        return 200

    def __getitem__(self, index):
        rows = {"labels": np.int32, "difficult": bool, "crowd": bool, "area": np.float32}
        empty = {key: np.full(1, index).astype(kind) for key, kind in rows.items()}
        return {"image": np.full((8, 8, 1), index, np.uint8), "boxes": np.float32([[0, 0, 8, 8]]), **empty}

    def describe(self, index):
        return f"grey {index}"


def test_a_mosaic_draws_from_all_of_the_split_after_the_transforms_before_it():
    entries = [dict(op="adjust_brightness", delta=0.1), dict(op="mosaic", keep=0.0)]
    built = pipeline.build(entries, annotations=Annotations(max_boxes=4))
    drawn = []
    for position in range(100):
        example = transformed(Greys(), 7, built, seed=3, position=position)
        levels = np.unique(np.round((example["image"] - 0.1) * 255)).tolist()
        assert set(levels) == set(example["labels"].tolist())
        assert 7 in levels
        drawn += [level for level in levels if level != 7]
    assert len(set(drawn)) > 120  # of 300 draws among 200, a share of 1 - exp(-1.5) is expected: 155
    assert abs(np.mean(drawn) - 99.5) < 14  # four standard errors


def test_without_boxes_only_maps_are_moved():
    batch = next(load(max_boxes=None, transforms=(dict(op="flip", p=1.0),)).train())
    plain = next(load(max_boxes=None, transforms=()).train())
    assert set(batch) == {"image", "class_map", "instances"}
    for key in batch:
        np.testing.assert_array_equal(batch[key], plain[key][:, :, ::-1])


def test_an_example_with_more_boxes_than_rows_is_refused_while_it_is_read():
    built = pipeline.build([dict(op="mosaic")], annotations=Annotations(max_boxes=3))
    batches = Batches(Greys(), built, seed=0, batch=2, rows=(0, 2), endless=True)
    with pytest.raises(data.loading.UserError, match=r"grey \d+ has 1 box, which transforms may turn into 4"):
        batches[0]
