"""Drawn scenes: pairs are of one scene, training scenes are disjoint, stripes and colours are what they should be."""

import itertools

import numpy as np
import pytest

from cvjax import data
from cvjax.data.builders import Shapes, names, shapes


def records(variant, split):
    return list(Shapes.prepared(variant).as_data_source(split))


def pictures(variant, split, feature="image"):
    return np.stack([record[feature] for record in records(variant, split)])


def repainted(solid):
    """The striped picture that a solid one determines, from the share of a pixel that its blue tells; by hand."""
    share = (225 - solid[..., 2:].astype(float)) / (225 - 30)
    rows = np.where(np.arange(32)[:, None, None] % 4 < 2, (255, 250, 240), (0, 70, 85))
    return np.array(shapes.DARK) + share * (rows - np.array(shapes.DARK))


def test_the_test_splits_are_the_same_scenes_and_the_training_splits_are_not():
    solid, striped = (pictures(f"smoke_{style}", "test") for style in ("solid", "striped"))
    np.testing.assert_allclose(striped, repainted(solid), atol=1.5)  # both are rounded
    solid, striped = (pictures(f"smoke_{style}", "train") for style in ("solid", "striped"))
    distances = np.abs(repainted(solid)[:, None] - striped).mean((2, 3, 4))
    assert distances.shape == (16, 16) and distances.min() > 5


def test_no_scene_of_the_full_size_is_drawn_twice():
    streams = ((shapes.TRAIN, 2000), (shapes.TRAIN_STRIPED, 2000), (shapes.TEST, 200))
    scenes = [
        shapes.scene(np.random.default_rng((shapes.SEED, stream, key)))
        for stream, count in streams
        for key in range(count)
    ]
    assert len(set(scenes)) == len(scenes)
    assert {len(scene) for scene in scenes} == {1, 2, 3}
    for first, second in itertools.chain(*(itertools.combinations(scene, 2) for scene in scenes)):
        assert first.radius >= second.radius
        assert np.hypot(first.x - second.x, first.y - second.y) > first.radius + second.radius
    ends = np.array(
        [(s.x - s.radius, s.y - s.radius, 1 - s.x - s.radius, 1 - s.y - s.radius) for c in scenes for s in c]
    )
    assert ends.min() > 0


@pytest.mark.parametrize("split", ["train", "test"])
def test_pairs_are_the_pictures_of_the_two_styles(split):
    solid = pictures("smoke_solid", split)
    np.testing.assert_array_equal(pictures("smoke_paired", split), solid)
    target = pictures("smoke_paired", split, "target")
    np.testing.assert_allclose(target, repainted(solid), atol=1.5)
    if split == "test":
        np.testing.assert_array_equal(target, pictures("smoke_striped", split))


def test_outlines_surround_what_is_filled_with_colours_that_they_do_not_tell():
    outlines, targets = pictures("smoke_edges", "train"), pictures("smoke_edges", "train", "target")
    assert (np.ptp(outlines, axis=-1) == 0).all() and outlines.min() < 60
    fills = [{tuple(p) for p in image.reshape(-1, 3).tolist()} & set(shapes.FILLS) for image in targets]
    assert all(fills) and len(set.union(*fills)) == len(shapes.FILLS)
    for image, outline in zip(targets, outlines, strict=True):
        inside = (image[..., None, :] == np.array(shapes.FILLS)).all(-1).any(-1)
        assert 0 < (outline[inside] < 255).any(-1).mean() < 0.7  # shapes are hollow
    # The same scene in another colour is as likely: the nearest colour to all of them, in L1, is grey.
    assert (np.median(shapes.FILLS, axis=0) == 128).all()
    drawn = np.random.default_rng(0)
    one = (shapes.Shape("circle", 0.5, 0.5, 0.25, 0.0),)
    centres = {tuple(shapes.filled(drawn, one, 32)[16, 16]) for _ in range(60)}
    assert centres == set(shapes.FILLS)


@pytest.mark.parametrize(("kind", "area"), [("circle", np.pi), ("square", 2.0), ("triangle", 27**0.5 / 4)])
def test_shapes_have_their_area_and_smooth_edges(kind, area):
    share = shapes.coverage(shapes.Shape(kind, 0.47, 0.52, 0.25, 0.3), 32)
    assert share.sum() == pytest.approx(area * 8**2, rel=0.03)  # OpenCV fills pixels that an edge touches
    assert len(np.unique(share)) > 10
    where = np.argwhere(share[..., 0] > 0.5).mean(0) + 0.5
    np.testing.assert_allclose(where, (0.52 * 32, 0.47 * 32), atol=0.25)


def test_labels_are_the_largest_shapes_kind_and_preparing_again_gives_the_same(tmp_path):
    first = records("smoke_solid", "train")
    drawn = [shapes.scene(np.random.default_rng((shapes.SEED, shapes.TRAIN, key))) for key in range(len(first))]
    largest = [max(scene, key=lambda shape: shape.radius).kind for scene in drawn]
    assert [[*shapes.KINDS][record["label"]] for record in first] == largest and len(set(largest)) == 3
    second = list(Shapes.prepared("smoke_solid", data_dir=tmp_path).as_data_source("train"))
    np.testing.assert_array_equal([r["image"] for r in first], [r["image"] for r in second])


def test_variants_are_found_by_name_and_the_target_as_a_further_image():
    assert {f"shapes/{style}" for style in ("solid", "striped", "paired", "edges")} <= set(names())
    loaded = data.load({"name": "shapes/smoke_paired", "images": {"target": "target"}, "batch": 4}, seed=0)
    batch = next(loaded.train())
    assert batch["image"].shape == batch["target"].shape == (4, 32, 32, 3)
    assert loaded.info["classes"] == tuple(shapes.KINDS)
