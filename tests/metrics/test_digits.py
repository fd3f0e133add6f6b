import jax.numpy as jnp
import numpy as np
import pytest

from cvjax import data
from cvjax.errors import UserError
from cvjax.metrics import digits, generative
from cvjax.metrics.controls import impostors

# Of an independent implementation with another classifier: FID over that of one Gaussian a class, distance to the
# nearest training digit. FIDs of two classifiers agree in magnitude only, distances to how samples are drawn.
PUBLISHED = {
    "Gaussian per class": (1.0, 19),
    "1297 training digits": (0.20, 0),
    "500 training digits": (0.41, 0),
    "one Gaussian": (10.8, 26),
    "class means": (4.0, 16),
    "one exemplar per class": (7.0, 0),
    "independent pixels": (25, 34),
    "uniform noise": (40, 57),
    "half of the classes": (17, 0),
}


@pytest.fixture(scope="module")
def controls():
    return digits.controls()


def test_controls_agree_with_published_ones_in_magnitude(controls):
    assert controls.keys() == PUBLISHED.keys()
    for name, (fid, distance) in PUBLISHED.items():
        assert 0.4 * fid < controls[name]["fid_over_control"] < 1.6 * fid, name
        assert controls[name]["nearest_distance"] == pytest.approx(distance, abs=0.7), name


def test_fid_orders_the_controls(controls):
    order = [
        "1297 training digits",
        "500 training digits",
        "Gaussian per class",
        "class means",
        "one Gaussian",
        "half of the classes",
        "independent pixels",
        "uniform noise",
    ]
    fids = [controls[name]["fid"] for name in order]
    assert fids == sorted(fids)


def test_inception_score_alone_passes_a_collapsed_model(controls):
    real, exemplars, means = (controls[n] for n in ("1297 training digits", "one exemplar per class", "class means"))
    assert exemplars["inception_score"] > real["inception_score"]
    assert means["inception_score"] > controls["500 training digits"]["inception_score"]
    for collapsed in (exemplars, means):
        assert collapsed["fid"] > 20 * real["fid"]
        assert collapsed["fid_over_control"] > 2


def test_precision_passes_what_recall_catches(controls):
    real, half, means, exemplars, noise = (
        controls[name]
        for name in (
            "1297 training digits",
            "half of the classes",
            "class means",
            "one exemplar per class",
            "uniform noise",
        )
    )
    assert min(real["precision"], half["precision"]) > 0.9 and real["recall"] > 0.8
    assert half["recall"] < 0.5 * real["recall"]
    assert means["precision"] == exemplars["precision"] == 1.0  # each mode is in the midst of real ones
    assert max(means["recall"], exemplars["recall"], noise["recall"]) <= 0.01  # a ball about copies is a point
    assert controls["one Gaussian"]["precision"] < 0.5 * controls["Gaussian per class"]["precision"]


def test_kernel_distance_orders_the_controls_and_is_0_on_average_for_real_digits(controls):
    order = ["Gaussian per class", "class means", "half of the classes", "independent pixels", "uniform noise"]
    distances = [controls[name]["kid"] for name in order]
    assert distances == sorted(distances) and distances[0] > 0.02
    for name in ("1297 training digits", "500 training digits"):
        assert abs(controls[name]["kid"]) < 0.02


def test_memorisation_tells_copies_from_what_is_new(controls):
    copies = ["1297 training digits", "500 training digits", "one exemplar per class", "half of the classes"]
    assert [controls[name]["memorisation"] for name in copies] == [0, 0, 0, 0]
    order = ["class means", "Gaussian per class", "one Gaussian", "independent pixels", "uniform noise"]
    ratios = [controls[name]["memorisation"] for name in order]
    assert ratios == sorted(ratios) and 0.8 < ratios[0] < 1 < ratios[1] < 1.2
    assert digits.evaluate(data.arrays("digits", "test")["image"])["memorisation"] == pytest.approx(1.0, rel=1e-12)


def test_what_each_other_measure_catches(controls):
    assert controls["one exemplar per class"]["nearest_distance"] == 0
    assert controls["half of the classes"]["smallest_class"] == 0
    assert controls["Gaussian per class"]["smallest_class"] >= 0.05
    assert controls["Gaussian per class"]["fid_over_control"] == pytest.approx(1.0, rel=1e-12)


def test_control_fid_is_the_same_each_time_and_grows_with_fewer_samples():
    first = digits.control_fid(300)
    digits.control_fid.cache_clear()
    assert digits.control_fid(300) == first > digits.control_fid()


def test_evaluate_treats_unquantised_images_as_their_grey_levels():
    rng = np.random.default_rng(0)
    levels = rng.integers(17, size=(50, 8, 8, 1)).astype(np.float32) / 16
    blurred = levels + rng.uniform(-0.03, 0.03, levels.shape).astype(np.float32)  # less than half a level
    assert digits.evaluate(blurred) == digits.evaluate(levels)


def test_features_do_not_depend_on_how_images_are_chunked():
    images = data.arrays("digits", "test")["image"][: digits.CHUNK + 40]
    found, probabilities = digits.features(images)
    alone, _ = digits.features(images[-3:])
    assert found.shape == (digits.CHUNK + 40, 64) and found.dtype == np.float64
    np.testing.assert_allclose(alone, found[-3:], atol=1e-5)  # float32 sums
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, atol=1e-5)


def test_real_digits_have_17_levels():
    images = data.arrays("digits", "train")["image"]
    assert np.abs(digits.quantise(images) - images).max() < 1 / 255
    assert len(np.unique(digits.quantise(images))) == 17


def test_gaussian_per_class_has_each_class_s_mean_and_covariance():
    rng = np.random.default_rng(1)
    images = rng.normal(size=(60, 2, 2, 1)).astype(np.float32)
    images[:30] += 3
    labels = np.repeat([0, 1], 30)
    samples = impostors.draw("Gaussian per class", 2, images, labels, 40_000).reshape(-1, 4)
    near = samples.mean(axis=1) > 1.5  # the classes are three standard deviations apart, of means of four pixels
    for chosen, group in ((near, images[:30]), (~near, images[30:])):
        group = group.reshape(30, 4)
        assert chosen.mean() == pytest.approx(0.5, abs=0.01)
        np.testing.assert_allclose(samples[chosen].mean(axis=0), group.mean(axis=0), atol=0.05)
        np.testing.assert_allclose(np.cov(samples[chosen].T), np.cov(group.T), atol=0.1)


def test_fid_sees_what_a_gaussian_lacks(controls):
    found, _ = digits.features(data.arrays("digits", "test")["image"])
    assert generative.fid(found, found) < 1e-9
    assert controls["Gaussian per class"]["fid"] > 4 * controls["500 training digits"]["fid"]


def test_a_misspelt_impostor_is_explained():
    with pytest.raises(UserError, match=r"Did you mean 'class means'\?"):
        impostors.draw("class mean", 0, np.zeros((2, 2, 2, 1), np.float32), np.array([0, 1]), 3)


def test_digits_are_clear_and_noise_is_not():
    real = data.arrays("digits", "test")["image"]
    noise = np.random.default_rng(0).normal(0.3, 0.05, (200, 8, 8, 1)).astype(np.float32)
    assert digits.sure_share(digits.features(real)[1]) > 0.9 and digits.sure_share(digits.features(noise)[1]) < 0.5


def test_nearest_is_brute_force():
    images, samples = digits.quantise(data.arrays("digits", "train")["image"]), np.random.default_rng(0)
    samples = samples.uniform(-0.2, 1.2, (5, 8, 8, 1)).astype(np.float32)
    for sample, found in zip(digits.quantise(samples), np.asarray(digits.nearest(jnp.asarray(samples))), strict=True):
        distances = [np.square(sample - image).sum() for image in images]
        assert np.square(sample - found).sum() == pytest.approx(min(distances), rel=1e-5)
