"""Proposals find what stands out, and are a function of the image and the seed, in content and in order."""

import cv2
import numpy as np
import pytest
from scipy import ndimage

from cvjax.data.derive import Derived
from cvjax.errors import UserError
from cvjax.ops import proposals
from cvjax.ops.proposals import edge_boxes, selective_search, sliding_grid, sobel_edges

SIZES = ((10.0, 20.0), (17.0, 8.0))
KINDS = {"selective": selective_search, "edges": edge_boxes, "grid": lambda image: sliding_grid(image, SIZES)}


def squares():
    """Makes a grey image with a dark square and a bright one, and their boxes."""
    image = np.full((60, 80, 3), 0.5, np.float32)
    image[10:30, 8:28] = 0.05
    image[25:50, 45:72] = (0.95, 0.9, 0.2)
    return image, np.float32([[8, 10, 28, 30], [45, 25, 72, 50]])


def noisy():
    return squares()[0] + np.random.default_rng(0).normal(0, 0.05, (60, 80, 3)).astype(np.float32)


def overlap(one, others):
    sides = np.minimum(one[2:], others[:, 2:]) - np.maximum(one[:2], others[:, :2])
    both = np.prod(np.clip(sides, 0, None), -1)
    return both / (np.prod(one[2:] - one[:2]) + np.prod(others[:, 2:] - others[:, :2], -1) - both)


# --- what all have in common --------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_boxes_are_different_lie_in_the_image_and_are_a_function_of_it(kind):
    image = noisy()
    first = KINDS[kind](image)
    assert len(first) > 20 and first.dtype == np.float32
    assert len(np.unique(first, axis=0)) == len(first)
    assert (first >= 0).all() and (first[:, 2:] <= (80, 60)).all() and (first[:, 2:] > first[:, :2]).all()
    for _ in range(3):  # in this process OpenCV gives another order each time
        np.testing.assert_array_equal(KINDS[kind](image), first)


@pytest.mark.parametrize(
    ("name", "arguments"),
    [("selective_search", {"smallest": 6}), ("edge_boxes", {}), ("sliding_grid", {"sizes": SIZES})],
)
def test_data_derive_takes_them_and_fewer_are_the_first_of_many(name, arguments):
    entry = {"function": f"cvjax.ops.proposals:{name}", "kind": "boxes", "max_boxes": 9}
    many, few = (
        Derived.of("proposals", {**entry, "arguments": {**arguments, "most": most}}).compute(noisy())
        for most in (2000, 5)
    )
    np.testing.assert_array_equal(few, many[:5])


# --- selective search ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("quality", [False, True])
def test_selective_search_finds_two_squares(quality):
    image, boxes = squares()
    found = selective_search(image, quality)
    for box in boxes:
        assert overlap(box, found).max() > 0.8


def test_more_measures_and_smaller_regions_propose_more_and_smaller_boxes():
    image = np.random.default_rng(0).uniform(size=(40, 50, 3)).astype(np.float32)
    counts = [len(selective_search(image, quality, (100.0,))) for quality in (False, True)]
    assert counts[0] < counts[1]
    coarse, fine = (selective_search(image, thresholds=(50.0,), region=least, smallest=2) for least in (200, 8))
    areas = [np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (coarse, fine)]
    assert len(coarse) < len(fine) and areas[0].min() >= 200 > areas[1].min()
    sides = selective_search(image, thresholds=(50.0,), region=8, smallest=6)
    assert (sides[:, 2:] - sides[:, :2]).min() >= 6


def test_the_seed_orders_the_same_boxes_otherwise_the_large_ones_first_on_the_whole():
    first, second = (selective_search(noisy(), True, seed=seed) for seed in (0, 1))
    assert (first != second).any()
    np.testing.assert_array_equal(np.unique(first, axis=0), np.unique(second, axis=0))
    areas = np.prod(first[:, 2:] - first[:, :2], axis=1)
    assert (np.diff(areas) > 0).any()  # not by size alone, or nothing small would be among the first
    half = len(areas) // 2
    assert areas[:half].mean() > 1.5 * areas[half:].mean()


def test_grey_images_are_searched_too():
    grey = squares()[0].mean(-1, keepdims=True)
    np.testing.assert_array_equal(selective_search(grey), selective_search(np.repeat(grey, 3, axis=-1)))
    np.testing.assert_array_equal(edge_boxes(grey), edge_boxes(np.repeat(grey, 3, axis=-1)))
    for propose in (selective_search, edge_boxes):
        with pytest.raises(UserError, match="one channel or three, not 2"):
            propose(np.zeros((20, 20, 2), np.float32))


def test_colour_spaces():
    """Shares of red and green do not change with the light (Uijlings et al., table 1)."""
    pixels = np.random.default_rng(0).integers(60, 120, (8, 9, 3), np.uint8)
    dim, bright = (proposals.in_space(light, "rgi") for light in (pixels, 2 * pixels))
    np.testing.assert_allclose(dim[..., :2], bright[..., :2], atol=1)
    expected = 255 * pixels[..., ::-1][..., :2] / pixels.sum(-1, keepdims=True, dtype=float)
    np.testing.assert_allclose(dim[..., :2], expected, atol=0.51)
    assert (proposals.in_space(np.zeros((2, 2, 3), np.uint8), "rgi") == 0).all()  # black has no shares
    np.testing.assert_array_equal(proposals.in_space(pixels, "h"), proposals.in_space(pixels, "hsv")[..., 0])
    with pytest.raises(UserError, match="no colour space 'rgb'"):
        proposals.in_space(pixels, "rgb")


# --- edge boxes ---------------------------------------------------------------------------------------------------


def test_edge_boxes_ranks_the_boxes_of_whole_contours_first(monkeypatch):
    """Only where contours hang together: with orientations along the edges, their pieces come first."""
    rows, columns = np.indices((200, 240))
    image = np.full((200, 240, 1), 0.3, np.float32)
    image[np.hypot(columns - 90, rows - 95) < 60] = 0.8
    image[np.hypot(columns - 150, rows - 120) < 30] = 0.1
    discs = np.float32([[30, 35, 150, 155], [120, 90, 180, 150]])
    for disc in discs:
        assert overlap(disc, edge_boxes(image)[:4]).max() > 0.8
    magnitudes, across = sobel_edges(image)
    along = np.mod(across + np.float32(np.pi / 2), np.float32(np.pi))
    monkeypatch.setattr(proposals, "sobel_edges", lambda image: (magnitudes, along))
    for disc in discs:
        assert overlap(disc, edge_boxes(image)[:4]).max() < 0.6


def test_edges_of_a_step_are_one_pixel_wide_and_turned_across_it():
    image = np.zeros((20, 30, 1), np.float32)
    image[:, 12:] = 0.4
    magnitudes, orientations = sobel_edges(image)
    assert (magnitudes[1:-1] > 0.5).sum(axis=1).tolist() == [1] * 18 and magnitudes.max() == 1
    assert (magnitudes[:, :11] == 0).all() and (magnitudes[:, 13:] == 0).all()
    np.testing.assert_allclose(orientations[:, 11:13], 0, atol=1e-6)
    lying = sobel_edges(image.transpose(1, 0, 2))
    np.testing.assert_allclose(lying[1][11:13], np.pi / 2, atol=1e-6)
    falling = sobel_edges(1 - image)[1][:, 11:13]  # from bright to dark is the same edge
    np.testing.assert_allclose(np.minimum(falling, np.pi - falling), 0, atol=1e-6)


def test_what_remains_of_the_edges_is_a_maximum_along_the_gradient():
    """Beside SciPy's Sobel operator, and places between pixels interpolated by SciPy."""
    image = ndimage.gaussian_filter(np.random.default_rng(1).uniform(size=(24, 31)), 1.5).astype(np.float32)
    magnitudes, orientations = sobel_edges(image[..., None])
    x, y = (ndimage.sobel(image.astype(float), axis=axis, mode="mirror") for axis in (1, 0))
    length = np.hypot(x, y)
    kept = magnitudes > 0
    np.testing.assert_allclose(magnitudes[kept], (length / length.max())[kept], atol=1e-4)
    turned = np.abs(orientations - np.mod(np.arctan2(y, x), np.pi))
    assert np.minimum(turned, np.pi - turned)[length > 0.05 * length.max()].max() < 1e-3
    for row, column in np.argwhere(length[1:-1, 1:-1] > 0.05 * length.max()) + 1:
        at = length[row, column]
        along = [row + np.array([1, -1]) * y[row, column] / at, column + np.array([1, -1]) * x[row, column] / at]
        near = ndimage.map_coordinates(length, along, order=1)
        if abs(near - at).min() > 0.01 * at:  # remap interpolates to 1/32 of a pixel
            assert kept[row, column] == (near < at).all()


def test_an_image_without_edges_has_no_boxes():
    assert edge_boxes(np.full((40, 40, 3), 0.3, np.float32)).shape == (0, 4)
    assert edge_boxes(np.zeros((1, 1, 3), np.float32)).shape == (0, 4)


def forest(path, **left_out):
    """Writes a structured forest: where the left upper corner of a patch is bright, it has one edge pixel."""
    options = {"stride": 2, "shrinkNumber": 2, "patchSize": 8, "patchInnerSize": 4, "numberOfGradientOrientations": 4}
    options |= {"gradientSmoothingRadius": 0, "regFeatureSmoothingRadius": 1, "ssFeatureSmoothingRadius": 2}
    options |= {"gradientNormalizationRadius": 4, "selfsimilarityGridSize": 2}
    options |= {"numberOfTrees": 2, "numberOfTreesToEvaluate": 2}
    trees = {"childs": [2, 0, 0] * 2, "featureIds": [0] * 6, "thresholds": [0.2, 0.0, 0.0] * 2}
    trees |= {"edgeBoundaries": [0, 0, 0, 1, 1, 1, 2], "edgeBins": [5, 5]}
    file = cv2.FileStorage(str(path), cv2.FILE_STORAGE_WRITE)
    file.startWriteStruct("options", cv2.FileNode_MAP)
    for name, value in options.items():
        file.write(name, value)
    file.endWriteStruct()
    for name in set(trees) - set(left_out):
        file.startWriteStruct(name, cv2.FileNode_SEQ)
        for value in trees[name]:
            file.write("", value)
        file.endWriteStruct()
    file.release()
    return str(path)


def test_a_structured_forest_of_ones_own_gives_the_edges(tmp_path):
    image = np.full((48, 64, 3), 0.1, np.float32)
    image[10:30, 20:40] = 0.9
    model = forest(tmp_path / "forest.yml")
    magnitudes, orientations = proposals.structured_edges(image, model)
    assert magnitudes[14:26, 24:36].max() > 0 == magnitudes[36:, 46:].max()
    assert (orientations >= 0).all() and (orientations <= np.pi).all()
    edge_boxes(image, model, smallest=8)


def test_a_file_that_is_no_forest_is_refused(tmp_path):
    image = squares()[0]
    (tmp_path / "text.yml").write_text("hello")
    (tmp_path / "other.yml").write_text("%YAML:1.0\n---\na: 1\n")
    part = forest(tmp_path / "part.yml", edgeBins=True)
    for name, message in (
        ("none.yml", "there is no such file"),
        ("text.yml", "OpenCV cannot read the file"),
        ("other.yml", "no structured forest; it has no options, childs"),
        (part, "no structured forest; it has no edgeBins"),
    ):
        with pytest.raises(UserError, match=message):
            edge_boxes(image, str(tmp_path / name))


# --- a grid -------------------------------------------------------------------------------------------------------


def test_a_grid_reaches_every_border_in_steps_no_longer_than_asked():
    boxes = sliding_grid(np.zeros((60, 80, 3), np.float32), SIZES, step=0.5)
    for width, height in SIZES:
        own = boxes[np.isclose(boxes[:, 2] - boxes[:, 0], width) & np.isclose(boxes[:, 3] - boxes[:, 1], height)]
        for axis, (side, whole) in enumerate(((width, 80), (height, 60))):
            places = np.unique(own[:, axis])
            assert places[0] == 0 and np.isclose(places[-1] + side, whole)
            assert np.diff(places).max() <= 0.5 * side + 1e-4
    larger = sliding_grid(np.zeros((60, 80, 3), np.float32), ((200.0, 100.0),))
    np.testing.assert_array_equal(larger, [[0, 0, 80, 60]])
    with pytest.raises(UserError, match="expected \\(width, height\\) in pixels"):
        sliding_grid(np.zeros((8, 8, 3), np.float32), ())
