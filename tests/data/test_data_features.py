"""Features of a TFDS dataset that belong to an image: read by name, moved with it, refused where they are not there."""

import itertools

import numpy as np
import pytest
import tensorflow_datasets as tfds

from cvjax import data
from cvjax.data import builders, features, vocabulary
from cvjax.data.annotations import Annotations
from cvjax.data.builders import embedded
from cvjax.errors import UserError

COUNT = 6


def example(index):
    """The image of an example, whose first channel gives columns, the second rows; and its negative."""
    height, width = 8, 10
    rows, columns = np.indices((height, width), dtype=np.uint8)
    image = np.stack([20 * columns, 20 * rows, np.full_like(rows, index)], -1)
    return {"image": image, "negative": 255 - image}


def landmarks(index):
    """Pixels of three points, column and row: the first moves, the second and third are the left and right eye."""
    return np.array([[index, 2], [2, 3], [7, 3]])


def captions(index):
    """One to three captions."""
    return [f"The {word}, number {index}!" for word in ("red", "green", "blue")[: 1 + index % 3]]


def masks(index):
    """Masks of some objects, of which each overlaps the one before."""
    found = np.zeros((index % 3, 8, 10), bool)
    for row in range(len(found)):
        found[row, 1 + row : 4 + 2 * row, 2 : 6 + row] = True
    return found


def annotation(mask):
    """An object as TFDS's detection datasets have it, with its mask."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    sides = dict(ymin=rows[0] / 8, xmin=columns[0] / 10, ymax=(rows[-1] + 1) / 8, xmax=(columns[-1] + 1) / 10)
    return {"bbox": tfds.features.BBox(**sides), "label": 1, "mask": embedded.png(np.uint8(mask)[..., None] * 255)}


class Annotated(builders.Embedded, skip_registration=True):
    """Writes ArrayRecord as `tfds build` does."""

    name = "annotated"
    VERSION = tfds.core.Version("1.0.0")

    def _info(self):
        image = tfds.features.Image(shape=(None, None, 3), encoding_format="png")
        features = {
            "image": image,
            "negative": image,
            "number": np.int64,
            "pixels": tfds.features.Tensor(shape=(3, 2), dtype=np.int64),
            "fractions": tfds.features.Tensor(shape=(3, 3), dtype=np.float32),
            "several": tfds.features.Sequence(tfds.features.Tensor(shape=(2,), dtype=np.float32)),
            "objects": tfds.features.Sequence(
                {
                    "bbox": tfds.features.BBoxFeature(),
                    "label": tfds.features.ClassLabel(names=["nothing", "thing"]),
                    "mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png"),
                }
            ),
            "caption": tfds.features.Text(),
            "captions": tfds.features.Sequence({"text": tfds.features.Text(), "id": np.int64}),
            "phrases": tfds.features.Sequence(tfds.features.Text()),
            "named": {f"{name}_{axis}": np.int64 for name in ("righteye", "lefteye", "brow") for axis in "xy"},
        }
        return tfds.core.DatasetInfo(
            builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
        )

    def _split_generators(self, dl_manager):
        return {split: self._generate_examples() for split in ("train", "test")}

    def _generate_examples(self):
        for index in range(COUNT):
            images = {name: embedded.png(pixels) for name, pixels in example(index).items()}
            pixels = landmarks(index)
            visible = np.array([[1], [index % 2], [2]])
            named = {
                f"{name}_{axis}": pixels[row, column]
                for row, name in enumerate(("brow", "lefteye", "righteye"))
                for column, axis in enumerate("xy")
            }
            yield (
                index,
                {
                    **images,
                    "number": index,
                    "pixels": pixels,
                    "fractions": np.concatenate([(pixels + 0.5) / (10, 8), visible], 1).astype(np.float32),
                    "several": list(np.float32(pixels + 0.5))[: index % 4],
                    "named": named,
                    "caption": captions(index)[0],
                    "captions": [{"text": caption, "id": 7} for caption in captions(index)],
                    "phrases": captions(index),
                    "objects": [annotation(mask) for mask in masks(index)],
                },
            )


@pytest.fixture(scope="module")
def prepared(tmp_path_factory):
    folder = tmp_path_factory.mktemp("prepared")
    Annotated.prepared(data_dir=folder)
    return str(folder)


def load(prepared, **settings):
    settings = {"name": "annotated", "batch": 4, **settings}
    settings |= {"data_dir": prepared} if settings["name"] == "annotated" else {}
    data.check(settings)
    return data.load(settings, seed=0)


@pytest.mark.parametrize("in_memory", [True, False])
def test_an_image_that_is_named_moves_with_the_first(prepared, in_memory):
    transforms = [dict(op="rotate", degrees=30.0, value=0.5), dict(op="flip")]
    batch = next(load(prepared, images={"target": "negative"}, transforms=transforms, in_memory=in_memory).train())
    assert {"image", "target", "number"} <= set(batch)
    np.testing.assert_allclose(batch["target"], 1 - batch["image"], atol=1e-6)
    assert not {"target", "negative"} & set(next(load(prepared).train()))  # what is not named would stay behind


EYES = ((1, 2),)


def seen(batch, row, point):
    """The pixel that a point of a batch lies in: the column and row that its colours tell, of the image unmoved."""
    x, y = batch["points"][row, point].astype(int)
    return np.round(batch["image"][row, y, x, :2] * 255 / 20).astype(int).tolist()


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize(
    "points",
    [
        dict(feature="pixels", exchange=EYES),
        dict(feature="fractions", exchange=EYES, normalised=True),
        dict(feature="named", exchange=EYES),
    ],
)
def test_points_are_on_the_pixels_that_they_were_on(prepared, points, in_memory):
    transforms = [dict(op="flip"), dict(op="random_crop", size=(7, 8), padding=1, border="edge")]
    train = load(prepared, points=points, transforms=transforms, in_memory=in_memory).train()
    flipped = 0
    for _ in range(6):
        batch = next(train)
        assert batch["points"].dtype == np.float32
        assert batch["points_mask"].all()
        assert points["feature"] not in batch
        for row, index in enumerate(batch["number"].tolist()):
            mirrored = batch["image"][row, 3, 0, 0] > batch["image"][row, 3, -1, 0]
            flipped += mirrored
            visible = np.array([True, index % 2 == 1 or points["feature"] != "fractions", True])
            expected = landmarks(index)
            if mirrored:
                expected, visible = expected[[0, 2, 1]], visible[[0, 2, 1]]
            positions = batch["points"][row]
            inside = ((positions >= 0) & (positions <= (8, 7))).all(1)
            np.testing.assert_array_equal(batch["visible"][row], visible & inside)
            for point in np.flatnonzero(inside):
                assert seen(batch, row, point) == expected[point].tolist()
    assert 0 < flipped < 24


def test_points_of_any_number_are_padded(prepared):
    batch = next(load(prepared, points=dict(feature="several", count=4), batch=COUNT).evaluate())
    np.testing.assert_array_equal(batch["points_mask"].sum(1), np.arange(COUNT) % 4)
    np.testing.assert_array_equal(batch["visible"], batch["points_mask"])
    for row in range(COUNT):
        np.testing.assert_array_equal(batch["points"][row, : row % 4], landmarks(row)[: row % 4] + 0.5)
        assert not batch["points"][row, row % 4 :].any()
    with pytest.raises(UserError, match=r"example 2 .*it has 2 points; data.points.count=1 has to be 2 or more"):
        load(prepared, points=dict(feature="several", count=1), in_memory=True, batch=COUNT)


@pytest.mark.parametrize("in_memory", [True, False])
def test_masks_overlap_and_are_padded_like_boxes(prepared, in_memory):
    settings = dict(max_boxes=3, masks="mask", batch=COUNT, in_memory=in_memory)
    batch = next(load(prepared, **settings).evaluate())
    assert batch["masks"].dtype == bool
    assert batch["masks"].shape == (COUNT, 3, 8, 10)
    for row in range(COUNT):
        np.testing.assert_array_equal(batch["masks"][row, : row % 3], masks(row))
        assert not batch["masks"][row, row % 3 :].any()
    batch = next(load(prepared, transforms=[dict(op="flip"), dict(op="center_crop", size=(6, 8))], **settings).train())
    for row, index in enumerate(batch["number"].tolist()):
        expected = masks(index)[:, 1:-1, 1:-1]
        mirrored = batch["image"][row, 3, 0, 0] > batch["image"][row, 3, -1, 0]
        np.testing.assert_array_equal(batch["masks"][row, : index % 3], expected[:, :, ::-1] if mirrored else expected)
    assert "masks" not in next(load(prepared, max_boxes=3).train())


@pytest.mark.parametrize("in_memory", [True, False])
@pytest.mark.parametrize("text", ["caption", "captions", "phrases"])
def test_texts_become_tokens_of_the_training_splits_vocabulary(prepared, text, in_memory):
    tokenise = [dict(op="tokenise", length=8, text=text)]
    settings = dict(keep=[text], transforms=tokenise, eval_transforms=tokenise, train_split="train[:4]", batch=COUNT)
    loaded = load(prepared, in_memory=in_memory, **settings)
    batch = next(loaded.evaluate())
    assert text not in batch
    assert batch["tokens"].dtype == np.int32
    assert batch["tokens"].shape == (COUNT, 8)
    np.testing.assert_array_equal(batch["tokens_mask"], batch["tokens"] != vocabulary.PAD)
    several = 1 if text == "caption" else 3
    expected = vocabulary.build_vocabulary([one for index in range(4) for one in captions(index)[:several]], 10_000)
    assert loaded.vocabulary == expected
    for row, tokens in enumerate(batch["tokens"]):
        number = row if row < 4 else "<unknown>"  # only the first four are trained on
        assert vocabulary.decode(tokens, loaded.vocabulary) == f"the red , number {number} !"
    kept = data.load({"name": "annotated", "data_dir": prepared, **settings}, seed=0, vocabulary=vocabulary.EMPTY)
    assert kept.vocabulary is vocabulary.EMPTY  # that of a run that is continued


def test_one_of_several_texts_is_drawn(prepared):
    draw = [dict(op="random_text", text="phrases"), dict(op="tokenise", length=8, text="phrases", name="words")]
    loaded = load(prepared, keep=["phrases"], transforms=draw, eval_transforms=draw[1:], vocabulary=9)
    assert len(loaded.vocabulary) == 9
    assert set(next(loaded.train())) >= {"words", "words_mask"}
    loaded = load(prepared, keep=["phrases"], transforms=draw, eval_transforms=draw[1:], batch=COUNT)
    train, seen = loaded.train(), {}
    for _ in range(30):
        batch = next(train)
        for number, tokens in zip(batch["number"].tolist(), batch["words"], strict=True):
            seen.setdefault(number, []).append(vocabulary.decode(tokens, loaded.vocabulary).split()[1])
    for number, words in seen.items():
        names, counts = np.unique(words, return_counts=True)
        assert set(names) == {"red", "green", "blue"} & {"red", *("green", "blue")[: number % 3]}
        assert (abs(counts - 30 / len(names)) < 15).all()


def test_two_sources_share_a_vocabulary(prepared):
    tokenise = [dict(op="tokenise", length=8)]
    read = dict(keep=["caption"], transforms=tokenise, eval_transforms=tokenise)
    second = dict(name="annotated", data_dir=prepared, train_split="train[4:]", **read)
    loaded = load(prepared, train_split="train[:4]", also=second, **read)
    assert {str(number) for number in range(COUNT)} < set(loaded.vocabulary.words)
    batch = next(loaded.train())
    for name in ("", "also_"):
        for number, tokens in zip(batch[f"{name}number"], batch[f"{name}tokens"], strict=True):
            assert vocabulary.decode(tokens, loaded.vocabulary) == f"the red , number {number} !"


EVERYTHING = dict(
    images={"target": "negative"},
    points=dict(feature="several", count=3, exchange=EYES),
    max_boxes=2,
    masks="mask",
    keep=("captions",),
    eval_transforms=[dict(op="tokenise", length=8, text="captions")],
    transforms=[
        dict(op="resize", size=(9, 11)),
        dict(op="flip"),
        dict(op="color_jitter", hue=0.2, images=("image", "target")),
        dict(op="random_text", text="captions"),
        dict(op="random_crop", size=(8, 9)),
        dict(op="tokenise", length=8, text="captions"),
    ],
)


def assert_same(first, second):
    for left, right in zip(first, second, strict=True):
        assert left.keys() == right.keys()
        for key in left:
            assert left[key].dtype == right[key].dtype
            np.testing.assert_array_equal(left[key], right[key])


def test_batches_with_everything_are_the_same_from_memory_disk_workers_processes_and_after_interruptions(prepared):
    def take(count, **settings):
        return list(itertools.islice(load(prepared, **EVERYTHING, **settings).train(), count))

    expected = take(8, in_memory=True)
    assert_same(expected, take(8, in_memory=False))
    assert_same(expected[:4], take(4, in_memory=False, workers=1))
    chosen = {"name": "annotated", "data_dir": prepared, "batch": 4, **EVERYTHING}
    parts = [
        itertools.islice(data.load(chosen, seed=0, process_index=index, process_count=2).train(), 8) for index in (0, 1)
    ]
    joined = (
        {key: np.concatenate([part[key] for part in step]) for key in step[0]} for step in zip(*parts, strict=True)
    )
    assert_same(expected, joined)
    again = load(prepared, **EVERYTHING).train()
    again.set_state({**again.get_state(), "step": 5})
    assert_same(expected[5:], itertools.islice(again, 3))
    assert_same(*(load(prepared, **EVERYTHING, in_memory=where).evaluate() for where in (True, False)))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"images": {"target": "negatve"}}, r"data.images.target='negatve'.*no such image. Did you mean 'negative'"),
        ({"images": {"number": "negative"}}, r"annotated has a feature 'number' already"),
        ({"images": ["negative"]}, r"data.images=.*expected Mapping"),
        ({"points": {"exchange": EYES}}, r"data.points.feature is missing"),
        ({"points": {"feature": "pixels", "swap": EYES}}, r"data.points.swap: there is no such key"),
        ({"points": {"feature": "pixels", "exchange": [1, 2]}}, r"data.points.exchange=\[1, 2\]: expected"),
        ({"points": {"feature": "pixels", "exchange": [[1, 1]]}}, r"exchange=.* each of them once"),
        ({"points": {"feature": "pixels", "exchange": [[1, 3]]}}, r"exchange names point 3, but there are 3"),
        ({"masks": "mask"}, r"data.masks='mask': masks belong to boxes, so set data.max_boxes"),
        ({"masks": "mas", "max_boxes": 3}, r"data.masks='mas': .*Did you mean 'mask'"),
        ({"masks": "mask", "max_boxes": 5, "name": "digit_scenes"}, r"objects of digit_scenes have no such mask. None"),
        (
            {"keep": ["phrases"]},
            r"'phrases' is text, .*dict\(op='tokenise', length=16, text='phrases'\) to data.tra",
        ),
        ({"transforms": [dict(op="tokenise", length=9)]}, r"reads the text 'caption', which data.keep has to name"),
        (
            {"keep": ["caption"], "transforms": [dict(op="tokenise", length=2)]},
            r"tokenise: length=2: expected int at least 3",
        ),
        ({"keep": ["caption"], "transforms": [dict(op="tokenise", length=9)]}, r"is text, .* to data.eval_transforms"),
        ({"keep": ["caption"], "transforms": [dict(op="random_text")]}, r"'caption' is text, .* to data.transforms"),
        (
            {"keep": ["caption"], "transforms": [dict(op="tokenise", length=9), dict(op="mosaic")], "max_boxes": 9},
            r"transforms\[1\]: mosaic cannot join the texts",
        ),
        (
            {"keep": ["caption"], "transforms": [dict(op="tokenise", length=9, name="label")]},
            r"the name 'label' is taken",
        ),
        (
            {"keep": ["class_map"], "name": "digit_scenes", "transforms": [dict(op="random_text", text="class_map")]},
            r"data.transforms: 'class_map' is no text",
        ),
        ({"vocabulary": 4}, r"data.vocabulary=4 must be more than the 4 special tokens"),
        ({"points": {"feature": "pixel"}}, r"no points 'pixel'. Did you mean 'pixels'"),
        ({"points": {"feature": "number"}}, r"no points 'number'.*Known: fractions, named, pixels, several"),
        ({"points": {"feature": "several"}}, r"any number of points; set `count`"),
    ],
)
def test_a_mistake_is_named_with_what_would_be_right(prepared, settings, message):
    with pytest.raises(UserError, match=message):
        load(prepared, **settings)


def test_the_image_of_a_pair_is_that_of_high_resolution():
    image = tfds.features.Image(shape=(None, None, 3))
    pair = tfds.features.FeaturesDict({"lr": image, "hr": image})  # as DIV2K's
    columns = features.select("div2k", pair, Annotations())
    assert columns.numbers == ("image",) and columns.image == "hr" and not columns.images
    read = columns.read({"lr": np.zeros((2, 3, 3), np.uint8), "hr": np.ones((4, 6, 3), np.uint8)})
    assert read.keys() == {"image"} and read["image"].shape == (4, 6, 3)
