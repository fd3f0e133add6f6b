"""What the systems share: steps, whole pictures on canvases, published figures, eight views, tiles, user errors."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from scipy import ndimage
from skimage.metrics import structural_similarity

from cvjax import config, data
from cvjax.captions import MEASURES
from cvjax.data import transforms
from cvjax.errors import UserError
from cvjax.metrics.image import Convention
from cvjax.ops.resampling import resize
from cvjax.translation.super_resolution import details, edsr, enlarger, srresnet, wdsr
from cvjax.translation.super_resolution.degradation import Degradation, degrade, fit_factor

KEY = jax.random.key(0)


def smooth(seed, *shape):
    drawn = np.random.default_rng(seed).uniform(size=shape)
    drawn = ndimage.gaussian_filter(drawn, (1.5, 1.5, 0)) if len(shape) == 3 else drawn
    return np.float32((drawn - drawn.min()) / np.ptp(drawn))


PICTURES = [smooth(0, 31, 40, 3), smooth(1, 40, 27, 3)]
FAST = {"name": "adam", "learning_rate": 3e-3}


def batch_of(pictures, size=40):
    scenes = [transforms.canvas(picture, size) for picture in pictures]
    batch = {
        "image": np.stack([scene.image for scene in scenes]),
        "inside": np.stack([scene.images["inside"] for scene in scenes]),
        "valid": np.ones(len(pictures), bool),
    }
    return jax.tree.map(jnp.asarray, batch)


@pytest.fixture(scope="module")
def system():
    """A recipe, a state after some steps on one batch, and the losses."""
    recipe = edsr.recipe(2, 1, 4, tile=8, optimiser=FAST)
    batch = {"image": jnp.asarray(np.stack([smooth(seed, 17, 16, 3) for seed in range(4)]))}
    state, losses, step = recipe.init(KEY, batch), [], jax.jit(recipe.train_step)
    for index in range(60):
        state, metrics = step(state, batch, jax.random.key(index))
        losses.append(float(metrics["loss/total"]))
    return recipe, state, batch, losses


def test_steps_descend_the_mean_absolute_difference(system):
    recipe, state, batch, losses = system
    assert losses[-1] < 0.5 * losses[0] and state.step == 60
    truth = fit_factor(batch["image"], 2)
    assert truth.shape == (4, 16, 16, 3)  # 17 rows are cut to 16
    first = recipe.init(KEY, batch)
    made = recipe.networks["enlarger"].apply({"params": first.params["enlarger"]}, degrade(KEY, truth, 2))
    assert losses[0] == pytest.approx(float(np.abs(np.float64(made) - truth).mean()), rel=1e-4)


def test_squared_differences_are_those_of_the_range_from_minus_one():
    made, truth = jnp.float32([0.25, 1.0]).reshape(1, 1, 2, 1), jnp.float32([0.75, 1.0]).reshape(1, 1, 2, 1)
    assert enlarger.squared_loss(made, truth) == 0.5 and enlarger.l1_loss(made, truth) == 0.25


@pytest.fixture(scope="module")
def evaluated(system):
    recipe, state, _, _ = system
    batch = batch_of([*PICTURES, PICTURES[0]])
    batch["valid"] = jnp.array([True, True, False])
    return jax.device_get((batch, jax.jit(recipe.eval_step)(state, batch, KEY)))


def test_a_picture_on_a_canvas_is_shrunk_as_if_it_were_alone(system, evaluated):
    recipe, state, _, _ = system
    _, outputs = evaluated
    np.testing.assert_array_equal(outputs["size"], [[30, 40], [40, 26], [30, 40]])
    assert not outputs["image"][2].any() and outputs["image"][0].any()  # the last row only pads
    for row, picture in enumerate(PICTURES):
        height, width = (side // 2 * 2 for side in picture.shape[:2])
        alone = jnp.asarray(picture)[None, :height, :width]
        low = degrade(KEY, alone, 2)
        found = outputs["low"][row, : height // 2, : width // 2]
        np.testing.assert_allclose(found, low[0], atol=1e-6)
        for kernel in ("bicubic", "lanczos"):
            expected = resize(low, (height, width), kernel)[0]
            np.testing.assert_allclose(outputs[kernel][row, :height, :width], expected, atol=1e-5)
        whole = recipe.predict(state, {"image": low[:, :20, :20]}, KEY)["image"]
        inside = slice(0, 2 * min(low.shape[1:3]) - 2 * recipe.networks["enlarger"].reach)  # of what the canvas changes
        made = np.clip(outputs["image"][row, : whole.shape[1], : whole.shape[2]], 0, 1)
        np.testing.assert_allclose(made[inside, inside], whole[0, inside, inside], atol=1e-5)


def luma_by_hand(picture):
    levels = np.round(np.clip(np.float64(picture), 0, 1) * 255)
    return (16 + (levels @ np.array([65.481, 128.553, 24.966])) / 255)[2:-2, 2:-2]


def test_figures_are_means_over_pictures_by_the_published_convention(system, evaluated):
    recipe, (batch, outputs) = system[0], evaluated
    real = {name: value[:2] for name, value in batch.items()}, {name: value[:2] for name, value in outputs.items()}
    figures = recipe.score([real])
    by_hand = {"image": [], "bicubic": [], "lanczos": [], "ssim": []}
    for row, (height, width) in enumerate([(30, 40), (40, 26)]):
        truth = luma_by_hand(batch["image"][row, :height, :width])
        for name in ("image", "bicubic", "lanczos"):
            found = luma_by_hand(outputs[name][row, :height, :width])
            by_hand[name].append(10 * np.log10(255**2 / ((found - truth) ** 2).mean()))
            if name == "image":
                options = dict(gaussian_weights=True, sigma=1.5, use_sample_covariance=False, data_range=255)
                by_hand["ssim"].append(structural_similarity(truth, found, **options))
    assert figures["psnr_y"] == pytest.approx(np.mean(by_hand["image"]), abs=1e-6)
    assert figures["ssim_y"] == pytest.approx(np.mean(by_hand["ssim"]), abs=1e-6)
    for name in ("bicubic", "lanczos"):
        assert figures[f"psnr_{name}"] == pytest.approx(np.mean(by_hand[name]), abs=1e-6)
        gain = np.mean(np.subtract(by_hand["image"], by_hand[name]))
        assert figures[f"psnr_over_{name}"] == pytest.approx(gain, abs=1e-6)
    assert figures.keys() <= MEASURES.keys()
    half = [
        ({n: v[i : i + 1] for n, v in real[0].items()}, {n: v[i : i + 1] for n, v in real[1].items()}) for i in (0, 1)
    ]
    assert recipe.score(half) == pytest.approx(figures, rel=1e-6)  # however they were batched


def test_pictures_say_the_convention_and_show_where_interpolation_fails(system, evaluated, monkeypatch):
    recipe, state, _, _ = system
    titles = []
    monkeypatch.setattr(
        details, "draw_windows", lambda rows, title: titles.append((rows, title)) or np.zeros((9, 9, 3))
    )
    batch = jax.tree.map(jnp.asarray, evaluated[0])
    recipe.visualise(state, batch, KEY)
    ((rows, title),) = titles
    assert len(rows) == 2 and str(Convention("y", border=2)) in title and title.startswith("2 times as large")
    assert [caption.split(",")[0] for caption in rows[0][2]] == ["bicubic", "ours", "truth"]
    truth, wrong = np.zeros((20, 30, 3)), np.zeros((20, 30, 3))
    wrong[11:15, 4:8] = 1
    assert details.find_detail(truth, wrong, 4) == (11, 4)


def test_figures_of_details_are_drawn():
    rows = [(picture, (3, 4, 12), {"bicubic, 1 dB": picture, "truth": picture}) for picture in PICTURES]
    drawn = details.draw_windows(rows, "a title")
    assert drawn.ndim == 3 and 0 < drawn.mean() < 1


def test_the_ensemble_is_the_mean_of_eight_views(system):
    recipe, state, _, _ = system
    net, held = recipe.networks["enlarger"], {"params": state.params["enlarger"]}
    low = jnp.asarray(smooth(3, 7, 10, 3))[None]
    views = []
    for quarter in range(4):
        for mirrored in (False, True):
            seen = jnp.rot90(low[:, :, ::-1] if mirrored else low, quarter, (1, 2))
            made = jnp.rot90(net.apply(held, seen), -quarter, (1, 2))
            views.append(made[:, :, ::-1] if mirrored else made)
    expected = np.clip(np.mean(views, axis=0), 0, 1)
    eight = edsr.recipe(2, 1, 4, self_ensemble=True)
    found = eight.predict(state, {"image": low}, KEY)["image"]
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - recipe.predict(state, {"image": low}, KEY)["image"]).max() > 1e-3


def test_tiles_give_what_the_whole_gives_inside_it(system):
    recipe, state, _, _ = system
    net, image = recipe.networks["enlarger"], smooth(4, 31, 45, 3)[None]  # with tiles of 8
    found = recipe.predict(state, {"image": image}, KEY)["image"]
    whole = np.clip(net.apply({"params": state.params["enlarger"]}, jnp.asarray(image)), 0, 1)
    assert found.shape == (1, 62, 90, 3)
    margin = 2 * net.reach
    assert net.reach == 6
    np.testing.assert_allclose(
        found[:, margin:-margin, margin:-margin], whole[:, margin:-margin, margin:-margin], atol=1e-5
    )
    assert np.abs(found - whole).max() > 1e-4  # at the border, mirrors are not zeros


@pytest.mark.parametrize(("net", "field"), [(wdsr.WDSR(2, "b", 2, 4), 4), (srresnet.SRResNet(3, 1, 3), 10)])
def test_the_reach_covers_the_field_of_view(net, field):
    image = jnp.zeros((1, 1, 33, 3))
    held = net.init(KEY, image)
    _, seen = jax.jvp(lambda x: net.apply(held, x), (image + 0.1,), (image.at[:, :, 16].set(1.0),))
    places = np.flatnonzero(np.abs(np.asarray(seen)).max((0, 1, 3)))
    far = max(16 - places.min() // net.scale, places.max() // net.scale - 16)
    assert net.reach == field and field - 1 <= far <= field


def test_grey_and_tiny_pictures_are_enlarged(system):
    recipe, state, _, _ = system
    assert recipe.any_size
    assert recipe.predict(state, {"image": jnp.full((1, 1, 1, 3), 0.5)}, KEY)["image"].shape == (1, 2, 2, 3)
    long = recipe.predict(state, {"image": np.full((1, 1, 30, 3), 0.5, np.float32)}, KEY)["image"]
    assert long.shape == (1, 2, 60, 3) and np.isfinite(long).all()
    grey = jax.eval_shape(recipe.init, KEY, {"image": jnp.zeros((1, 16, 16, 1))})
    made = jax.eval_shape(lambda s, x: recipe.predict(s, {"image": x}, KEY), grey, jnp.zeros((1, 5, 9, 1)))
    assert made["image"].shape == (1, 10, 18, 1)


def test_pictures_smaller_than_a_patch_are_named(tmp_path):
    for name, side in {"a.png": 100, "b.png": 90}.items():
        Image.fromarray(np.zeros((side, 120, 3), np.uint8)).save(tmp_path / name)
    chosen = config.as_dict(config.load("configs/own_super_resolution.py").data)
    chosen |= {"name": None, "folder": str(tmp_path), "held_out": 0.5}
    with pytest.raises(UserError, match=r"random_crop\(size=96\) fails on .*b.png.* \(90x120x3\)"):
        for seed in range(8):  # in whichever split it is
            data.check(chosen | {"split_seed": seed})


def test_a_held_out_picture_that_cannot_be_measured_is_named(tmp_path):
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for index in range(10):  # more shapes than those that are tried
            Image.fromarray(np.zeros((100 + index, 120, 3), np.uint8)).save(tmp_path / split / f"a{index}.png")
    chosen = config.as_dict(config.load("configs/own_super_resolution.py").data)
    chosen |= {"name": None, "folder": str(tmp_path)}
    data.check(chosen)
    Image.fromarray(np.zeros((12, 60, 3), np.uint8)).save(tmp_path / "test" / "icon.png")
    with pytest.raises(UserError, match=r"eval_transforms\[0\]: canvas.*icon\.png.*needs 20 pixels; leave it out"):
        data.check(chosen)
    (tmp_path / "test" / "icon.png").unlink()
    Image.fromarray(np.zeros((60, 12, 3), np.uint8)).save(tmp_path / "test" / "tall.png")
    with pytest.raises(UserError, match=r"canvas.*tall\.png"):
        data.check(chosen)


@pytest.mark.parametrize(("scale", "least"), [(2, 16), (3, 18), (4, 20)])
def test_pictures_are_refused_below_the_size_from_which_they_are_measured(scale, least):
    recipe = edsr.recipe(scale, 1, 4)
    for size in ((least, least), (least - scale, least), (0, 40)):
        truth = np.zeros((1, *size, 3), np.float32)
        outputs = {name: truth + 0.1 for name in ("image", "bicubic", "lanczos")} | {"size": np.array([size])}
        if min(size) >= least:
            assert "ssim_y" in recipe.score([({"image": truth}, outputs)])
            continue
        with pytest.raises(UserError, match=rf"of {size[0]}x{size[1]} is too small.*least={least}"):
            recipe.score([({"image": truth}, outputs)])


def test_a_picture_of_one_row_is_refused_by_drawing_too(system):
    recipe, state, _, _ = system
    with pytest.raises(UserError, match="of 0x40 is too small to be measured"):
        recipe.visualise(state, batch_of([smooth(0, 1, 40, 3), PICTURES[1]]), KEY)


def test_what_cannot_be_trained_on_is_refused():
    recipe = edsr.recipe(4, 1, 4)
    for channels in (2, 4):
        with pytest.raises(UserError, match=f"jpeg=.*these images have {channels}; "):
            jpeg = edsr.recipe(4, 1, 4, degradation=Degradation(jpeg=(60.0, 95.0)))
            jpeg.init(KEY, {"image": jnp.zeros((1, 16, 16, channels))})
    with pytest.raises(UserError, match="images of 3x16 cannot be made 4 times smaller"):
        recipe.init(KEY, {"image": jnp.zeros((1, 3, 16, 3))})
    with pytest.raises(UserError, match=r'"canvas" is for data.eval_transforms.*random_crop", size=192'):
        recipe.init(KEY, batch_of(PICTURES))
    with pytest.raises(UserError, match=r"low_rank=0.1 leaves none of 8 features"):
        wdsr.recipe(2, "b", features=8, low_rank=0.1)
    with pytest.raises(UserError, match=r'low_rank=0.5 is for variant "b"'):
        wdsr.recipe(2, "a", low_rank=0.5)
    assert [wdsr.recipe(2, name).networks["enlarger"].low_rank for name in "ab"] == [0.8, 0.8]
    assert wdsr.recipe(2, "b", low_rank=0.5).networks["enlarger"].low_rank == 0.5
