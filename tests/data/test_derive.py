"""Derived features: computed once, kept beside the dataset, moved with the image, and as exact as all that is read."""

import concurrent.futures
import itertools
import json
import shutil
import time

import numpy as np
import pytest
from PIL import Image

from cvjax import data
from cvjax.data import pipeline
from cvjax.data.builders.digits import Digits
from cvjax.data.cached import WithDerived
from cvjax.data.derive import Derived
from cvjax.data.folder import open_split
from cvjax.data.sources import Decoded
from cvjax.data.transforms.scene import Scene
from cvjax.errors import UserError

CALLS = []  # images that a function below was called with
SHADE = 0.5


def bright_boxes(image, threshold: float = SHADE):
    """Returns a box around each pixel that is brighter than a threshold, at most four."""
    CALLS.append(image)
    rows, columns = np.nonzero(image.mean(-1) > threshold)
    return np.stack([columns, rows, columns + 1, rows + 1], -1)[:4]


def bright_map(image):
    return image.mean(-1) > SHADE


def inverted(image):
    return 1 - image


def histogram(image, bins=4):
    return np.histogram(image, bins, (0, 1))[0]


def wrong_shape(image):
    return np.zeros((len(image) + 1, image.shape[1]), int)


def named(image, model: str):
    return np.zeros(1)


def nothing():
    return np.zeros(1)


def failing(image):
    raise ValueError("no such luck")


def entry(function=bright_boxes, kind="boxes", **more):
    most = {"max_boxes": 4} if kind == "boxes" else {}
    return {"function": f"{__name__}:{function.__name__}", "kind": kind, **most, **more}


@pytest.fixture
def photos(tmp_path):
    """Makes a folder of 20 training and 4 test images of noise."""
    noise = np.random.default_rng(0).integers(0, 140, (24, 9, 10, 3), np.uint8)
    for index, pixels in enumerate(noise):
        path = tmp_path / ("train" if index < 20 else "test") / f"{index:02d}.png"
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(pixels).save(path)
    CALLS.clear()
    return tmp_path


def load(photos, seed=0, process=(0, 1), **settings):
    chosen = {"folder": str(photos), "batch": 4, "derive": {"spots": entry()}, **settings}
    return data.load(chosen, seed=seed, process_index=process[0], process_count=process[1])


def take(iterator, count):
    return list(itertools.islice(iterator, count))


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def read(photos, derive, split="train"):
    """Reads a split; returns the examples and for how many of them the functions ran."""
    CALLS.clear()
    derived = tuple(Derived.of(name, each) for name, each in derive.items())
    source = WithDerived(open_split(photos, split), derived, photos / ".derived")
    return [source[index] for index in range(len(source))], len(CALLS)


# --- on disk ------------------------------------------------------------------------------------------------------


def test_a_feature_is_computed_once_for_each_image(photos):
    first, calls = read(photos, {"spots": entry()})
    assert calls == 20
    again, calls = read(photos, {"spots": entry()})
    assert calls == 0
    assert_same(first, again)
    assert CALLS == [] and all(example["spots"].dtype == np.float32 for example in again)
    np.testing.assert_array_equal(again[0]["spots"], bright_boxes(again[0]["image"] / np.float32(255)))


def test_it_is_computed_anew_when_the_image_or_the_arguments_change(photos):
    before, _ = read(photos, {"spots": entry()})
    Image.fromarray(np.full((9, 10, 3), 255, np.uint8)).save(photos / "train" / "07.png")
    after, calls = read(photos, {"spots": entry()})
    assert calls == 1
    np.testing.assert_array_equal(after[7]["spots"][0], [0, 0, 1, 1])
    assert_same(before[:7] + before[8:], after[:7] + after[8:])
    (photos / "train" / "07.png").rename(photos / "train" / "99.png")  # the same image by another name
    assert read(photos, {"spots": entry()})[1] == 0
    assert read(photos, {"spots": entry(arguments={"threshold": 0.4})})[1] == 20
    assert read(photos, {"spots": entry()})[1] == 0


def test_an_image_that_changed_is_named_when_it_is_read_again(photos, capsys):
    read(photos, {"spots": entry()})
    file = photos / "train" / "07.png"
    Image.fromarray(np.full((9, 10, 3), 255, np.uint8)).save(file)
    Image.fromarray(np.full((9, 10, 3), 254, np.uint8)).save(photos / "train" / "new.png")
    read(photos, {"spots": entry()})
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 1 and said[0].endswith("07.png has changed: spots computed again")
    read(photos, {"spots": entry()})
    assert not capsys.readouterr().err


def test_they_are_computed_ahead_of_training_and_counted(photos, capsys):
    settings = {"folder": str(photos), "batch": 4, "derive": {"spots": entry(), "bright": entry(bright_map, "map")}}
    assert data.refresh_derived(settings) == {"train": (20, 20, 0), "test": (4, 4, 0)}
    assert data.refresh_derived(settings) == {"train": (20, 0, 0), "test": (4, 0, 0)}
    shutil.copy(photos / "test" / "21.png", photos / "train" / "03.png")  # what one image has become is known
    assert data.refresh_derived(settings) == {"train": (20, 0, 0), "test": (4, 0, 0)}
    for name in ("train/03.png", "train/04.png"):
        Image.fromarray(np.full((9, 10, 3), int(name[7]), np.uint8)).save(photos / name)
    with (next(photos.glob(".derived/bright_boxes*")) / "contents.jsonl").open("a") as torn:
        torn.write('["0123", "exam')
    assert data.refresh_derived(settings) == {"train": (20, 2, 2), "test": (4, 0, 0)}
    assert capsys.readouterr().err.count("has changed") == 4  # two features of two images
    CALLS.clear()
    take(load(photos, in_memory=False).train(), 6)
    assert not CALLS
    with pytest.raises(UserError, match=r"config\.data\.derive is empty"):
        data.refresh_derived({"folder": str(photos)})


def test_a_file_that_an_argument_names_counts_by_its_content(photos):
    model = photos / "model.txt"
    model.write_text("1")
    fingerprints = {"absent": Derived.of("x", entry(named, "array", arguments={"model": "elsewhere"})).fingerprint}
    for text in ("1", "2", "1"):
        model.write_text(text)
        found = Derived.of("x", entry(named, "array", arguments={"model": str(model)})).fingerprint
        assert fingerprints.setdefault(text, found) == found
    assert len(set(fingerprints.values())) == 3


def test_it_is_computed_anew_when_the_module_changes(photos, monkeypatch):
    read(photos, {"spots": entry()})
    monkeypatch.setattr("cvjax.data.derive._module_source", lambda function: "edited")
    assert read(photos, {"spots": entry()})[1] == 20


def test_a_write_that_is_interrupted_leaves_nothing_and_a_torn_file_is_replaced(photos, monkeypatch):
    whole, _ = read(photos, {"spots": entry()}, "test")
    files = sorted(photos.glob(".derived/*/*/*.npy"))
    assert len(files) == 4
    files[0].write_bytes(files[0].read_bytes()[:70])
    files[1].unlink()
    with monkeypatch.context() as patch:

        def full(file, array):
            file.write(b"half")
            raise OSError(28, "No space left on device")

        patch.setattr(np, "save", full)
        with pytest.raises(UserError, match=r"cannot write .*No space left on device\. Make room .*derive_dir"):
            read(photos, {"spots": entry()}, "test")
    assert not list(photos.glob(".derived/**/*.part"))
    assert_same(whole, read(photos, {"spots": entry()}, "test")[0])
    assert sorted(photos.glob(".derived/*/*/*.npy")) == files


def test_results_may_be_kept_in_another_folder(photos, tmp_path_factory):
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    load(photos, derive_dir=str(elsewhere))
    assert len(list(elsewhere.glob("bright_boxes-*/*/*.npy"))) == 24
    assert not (photos / ".derived").exists()
    (photos / "file").write_text("")
    with pytest.raises(UserError, match=r"data\.derive: cannot write .*\. Set data\.derive_dir"):
        load(photos, derive_dir=str(photos / "file"))


def test_those_of_a_dataset_by_name_are_beside_it(tmp_path):
    prepared = Digits.prepared().data_path
    shutil.copytree(prepared, tmp_path / "digits" / prepared.name)
    settings = {"name": "digits", "data_dir": str(tmp_path), "train_split": "train[:20]", "eval_split": "test[:9]"}
    batch = next(data.load({**settings, "derive": {"levels": entry(histogram, "array")}, "batch": 8}, seed=0).train())
    assert len(list(tmp_path.glob("digits/*/derived/histogram-*/*/*.npy"))) == 29
    assert batch["levels"].dtype == np.int32
    np.testing.assert_array_equal(batch["levels"][3], histogram(batch["image"][3]))
    assert sum(batch["valid"].sum() for batch in data.load(settings, seed=0).evaluate()) == 9  # read as before
    taken = {"label": entry(histogram, "array")}
    with pytest.raises(UserError, match="'label' is taken in a batch"):
        data.check({**settings, "derive": taken})


def test_threads_take_turns_to_parse_the_headers_of_files(photos, monkeypatch):
    expected, _ = read(photos, {"spots": entry()})
    source = WithDerived(open_split(photos, "train"), (Derived.of("spots", entry()),), photos / ".derived")
    load, parsing, most = np.load, [], []

    def watched(*arguments, **options):
        parsing.append(arguments)
        most.append(len(parsing))
        time.sleep(0.01)
        parsing.pop()
        return load(*arguments, **options)

    monkeypatch.setattr(np, "load", watched)
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        found = list(pool.map(source.__getitem__, range(20)))
    assert most == [1] * 20
    assert_same(expected, found)


# --- moved with the image -----------------------------------------------------------------------------------------


def test_derived_boxes_move_exactly_as_boxes_do():
    entries = [
        dict(op="random_scale", scale=(0.7, 1.4), keep=0.5),
        dict(op="mosaic", p=0.7, keep=0.3),
        dict(op="flip"),
        dict(op="random_shift", pixels=5),
        dict(op="pad", padding=2),
        dict(op="random_crop", size=(40, 40), keep=0.2),
    ]
    built = pipeline.build(entries, "data.transforms", data.loading.Annotations(max_boxes=99))
    generator = np.random.default_rng(0)

    def scene():
        corners = np.sort(generator.uniform(0, 48, (6, 2, 2)), axis=1).reshape(6, 4).astype(np.float32)
        image = generator.uniform(size=(48, 48, 3)).astype(np.float32)
        return Scene(image, corners, {"area": np.ones(6, np.float32)}, regions={"proposals": corners})

    counts = []
    for _ in range(30):
        moved = built(scene(), generator, scene)
        np.testing.assert_array_equal(moved.regions["proposals"], moved.boxes)
        counts.append(len(moved.boxes))
    assert min(counts) < 6 < max(counts)  # dropped, and joined


def test_every_kind_moves_as_what_it_is(photos):
    derive = {
        "spots": entry(),
        "bright": entry(bright_map, "map"),
        "negative": entry(inverted, "image"),
        "levels": entry(histogram, "array", arguments={"bins": 3}),
    }
    plain = next(load(photos, derive=derive).train())
    mirrored = next(load(photos, derive=derive, transforms=[dict(op="flip", p=1.0)]).train())
    assert plain["spots"].shape == (4, 4, 4) and plain["spots_mask"].shape == (4, 4)
    assert plain["bright"].dtype == np.int32
    np.testing.assert_allclose(mirrored["negative"], 1 - mirrored["image"], atol=1e-6)
    np.testing.assert_array_equal(mirrored["bright"], mirrored["image"].mean(-1) > SHADE)
    np.testing.assert_array_equal(mirrored["levels"], plain["levels"])
    np.testing.assert_array_equal(mirrored["spots_mask"], plain["spots_mask"])
    present = plain["spots_mask"]
    assert 0 < present.sum() < present.size
    x1, y1, x2, y2 = plain["spots"][present].T
    np.testing.assert_array_equal(mirrored["spots"][present], np.stack([10 - x2, y1, 10 - x1, y2], -1))
    assert not mirrored["spots"][~present].any()


# --- the loader ---------------------------------------------------------------------------------------------------

MOVING = [dict(op="resize", size=(12, 12)), dict(op="flip"), dict(op="random_shift", pixels=2)]


def test_memory_disk_and_workers_give_the_same_batches_without_computing_again(photos):
    memory = load(photos, transforms=MOVING)
    expected = take(memory.train(), 6)
    CALLS.clear()
    disk = load(photos, transforms=MOVING, in_memory=False)
    assert_same(expected, take(disk.train(), 6))
    assert_same(memory.evaluate(), disk.evaluate())
    assert CALLS == []
    for file in photos.glob(".derived/*/*/*.npy"):  # what a process reads that does not compute
        np.save(file, np.float32([[1, 2, 3, 4]]))
    batch = next(load(photos, in_memory=False, workers=1).train())
    np.testing.assert_array_equal(batch["spots"][:, 0], np.broadcast_to(np.float32([1, 2, 3, 4]), (4, 4)))
    np.testing.assert_array_equal(batch["spots_mask"].sum(1), 1)


def test_an_interrupted_iterator_continues_exactly_where_it_was(photos):
    straight = take(load(photos, transforms=MOVING).train(), 9)
    train = load(photos, transforms=MOVING).train()
    take(train, 5)
    state = json.loads(json.dumps(train.get_state()))
    again = load(photos, transforms=MOVING, in_memory=False).train()
    again.set_state(state)
    assert_same(take(again, 4), straight[5:])


def test_processes_share_the_batches_that_one_would_have(photos):
    parts = [take(load(photos, process=(index, 2), transforms=MOVING).train(), 6) for index in range(2)]
    assert_same(
        take(load(photos, transforms=MOVING).train(), 6),
        ({key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)),
    )


def test_selective_search_finds_the_digits_of_scenes_that_transforms_have_moved(tmp_path):
    """As region-based detectors read it: proposals and truth in one batch, moved together."""
    search = dict(function="cvjax.ops.proposals:selective_search", kind="boxes", max_boxes=150)
    derive = {"proposals": {**search, "arguments": {"thresholds": (100.0, 200.0), "region": 20, "most": 150}}}
    settings = dict(name="digit_scenes/smoke", train_split="train[:24]", eval_split="test[:1]", batch=24, max_boxes=8)
    settings |= dict(derive=derive, derive_dir=str(tmp_path))
    settings["transforms"] = [dict(op="random_scale", scale=(0.8, 1.2)), dict(op="flip")]
    batch = next(data.load(settings, seed=0).train())

    def recall(proposals):
        found = []
        for row in range(24):
            truth = batch["boxes"][row][batch["mask"][row]][:, None]
            boxes = proposals[row][batch["proposals_mask"][row]][None]
            sides = np.minimum(truth[..., 2:], boxes[..., 2:]) - np.maximum(truth[..., :2], boxes[..., :2])
            overlap = np.prod(np.clip(sides, 0, None), -1)
            areas = np.prod(truth[..., 2:] - truth[..., :2], -1) + np.prod(boxes[..., 2:] - boxes[..., :2], -1)
            found += (overlap / (areas - overlap) > 0.5).any(1).tolist()
        return np.mean(found)

    assert recall(batch["proposals"]) > 0.7
    assert recall(np.roll(batch["proposals"], 1, axis=0)) < 0.55  # another scene's


# --- mistakes -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("derive", "message"),
    [
        ({"spots": "bright"}, r"data\.derive\.spots must be a dict such as"),
        ({"spots": {"function": "x:y"}}, r"data\.derive\.spots\.kind is missing"),
        ({"spots": entry(knd="map")}, r"data\.derive\.spots\.knd: there is no such key. Did you mean 'kind'"),
        ({"spots": entry(kind="boxs")}, r"data\.derive\.spots\.kind='boxs': expected one of boxes, map"),
        ({"spots": entry(max_boxes=None)}, r"data\.derive\.spots\.max_boxes=None must be"),
        ({"spots": entry(max_boxes=0)}, r"data\.derive\.spots\.max_boxes=0: expected"),
        ({"spots": entry(bright_map, "map", max_boxes=3)}, r"data\.derive\.spots\.max_boxes=3 must be .* None"),
        ({"spots": {**entry(), "function": "bright"}}, 'must be "package.module:function"'),
        ({"spots": {**entry(), "function": "cvjax.nowhere:f"}}, "cvjax.nowhere cannot be imported"),
        ({"spots": {**entry(), "function": f"{__name__}:bright_box"}}, "no function 'bright_box'.* 'bright_boxes'"),
        ({"spots": entry(arguments={"treshold": 1})}, r"spots\.arguments\.treshold: there is no .* mean 'threshold'"),
        ({"spots": entry(arguments={"threshold": "x"})}, r"spots\.arguments\.threshold='x': expected float"),
        ({"spots": entry(histogram, "array", arguments={"bins": {1}})}, "arguments must be numbers, text"),
        ({"spots": entry(nothing, "array")}, "nothing' does not take an image"),
        ({"boxes": entry()}, "'boxes' is taken in a batch"),
    ],
)
def test_a_mistake_is_named(photos, derive, message):
    with pytest.raises(UserError, match=message):
        data.check({"folder": str(photos), "derive": derive})


def test_what_a_function_does_wrong_is_said_with_the_image(photos):
    with pytest.raises(UserError, match=r"png: data\.derive\.x: .*:wrong_shape returned int64 \[10, 10\] of .* 9x10"):
        load(photos, derive={"x": entry(wrong_shape, "map")})
    with pytest.raises(UserError, match=r"\d+\.png: data\.derive\.x: .*:failing fails: no such luck"):
        load(photos, derive={"x": entry(failing, "array")})
    with pytest.raises(UserError, match=r"png has 2 spots; data\.derive\.spots\.max_boxes=1 has to be 2"):
        load(photos, derive={"spots": entry(max_boxes=1)})
    labelled = Decoded(open_split(photos, "test"), [{"image": np.zeros((2, 2, 1), np.uint8), "label": np.int32(0)}])
    with pytest.raises(UserError, match="has a feature 'label' already"):
        WithDerived(labelled, (Derived("label", **entry(histogram, "array")),), photos)[0]
    with pytest.raises(UserError, match="rotate cannot move boxes"):
        data.check({"folder": str(photos), "derive": {"spots": entry()}, "transforms": [dict(op="rotate", degrees=5)]})
