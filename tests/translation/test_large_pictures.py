"""pix2pix: pictures in tiles, those that cannot be, and the best change of colours as a control."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.ops.tiling import fit_tile
from cvjax.translation import pix2pix
from cvjax.translation.pix2pix import UNetGenerator

KEY = jax.random.key(0)


def images(seed, size=(16, 16), batch=3):
    return jnp.float32(np.random.default_rng(seed).uniform(size=(batch, *size, 3)))


def small(**changed):
    chosen = dict(depth=2, width=4, field=16, discriminator_width=4, adversarial=0.0)
    return pix2pix.recipe(**{**chosen, **changed})


BATCH = {"image": images(1), "target": images(2)}


def test_recoloured_inputs_are_a_control_that_sees_the_truth():
    generator = np.random.default_rng(5)
    given = generator.uniform(size=(4, 12, 12, 3)).astype(np.float32)
    truth = 0.1 + 0.7 * given[..., ::-1] + np.float32(0.02 * generator.normal(size=given.shape))
    made = np.clip(truth + 0.1, 0, 1)
    rows = [({"target": truth[:3], "image": given[:3]}, {"image": made[:3]})]
    rows += [({"target": truth[3:], "image": given[3:]}, {"image": made[3:]})]  # fitted over all batches
    figures = small(recoloured=True).score(rows)
    assert figures["recoloured_psnr"] == pytest.approx(-20 * np.log10(0.02), abs=0.5)  # the noise is left
    assert figures["psnr_over_recoloured"] == pytest.approx(figures["psnr"] - figures["recoloured_psnr"])
    assert figures["psnr_over_recoloured"] < -10 and figures["psnr_over_input"] > 5
    assert figures["ssim_over_recoloured"] == pytest.approx(figures["ssim"] - figures["recoloured_ssim"])
    assert not {name for name in small().score(rows) if "recoloured" in name}


# --- large pictures -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("resize", [False, True])
def test_the_reach_covers_what_a_pixel_sees(resize):
    net, side = UNetGenerator(2, 2, dropout=0.0, resize=resize), 48
    held = jax.jit(net.init)(KEY, jnp.zeros((1, side, side, 3)))
    held = {**held, "params": jax.tree.map(lambda x: jnp.abs(x), held["params"])}  # nothing cancels
    place = side // 2 + np.arange(4)  # all places of a cell of the innermost level

    def total(image):
        return net.apply(held, image[None])[0, place, place].sum(axis=-1)

    slopes = np.asarray(jax.jit(jax.jacrev(total))(jnp.full((side, side, 3), 0.5)))
    rows = [np.flatnonzero(np.abs(slope).max(axis=(1, 2))) - at for slope, at in zip(slopes, place, strict=True)]
    farthest = max(max(-seen.min(), seen.max()) for seen in rows)
    assert net.reach == 12 and 12 - 4 <= farthest <= 12


def test_a_large_picture_goes_in_tiles_that_give_what_the_whole_gives():
    picture = np.asarray(images(6, (42, 50), batch=1))  # no multiples of 4: the whole is padded on all sides
    tiled, whole = (small(depth=2, test_mode="running", largest=largest) for largest in (1600, 2100))
    state = jax.jit(whole.init)(KEY, BATCH)
    assert [fit_tile(pixels, 12, 4) for pixels in (1599, 784, 783, 1)] == [12, 4, 0, 0]  # 16 at 1600
    made, wanted = (np.asarray(system.predict(state, {"image": picture}, KEY)["image"]) for system in (tiled, whole))
    inside = slice(12, -12)
    assert made.shape == wanted.shape == (1, 42, 50, 3)
    np.testing.assert_allclose(made[:, inside, inside], wanted[:, inside, inside], atol=1e-5)
    assert np.abs(made - wanted).max() > 1e-3  # the border is mirrored, and not framed by zeros


def test_a_picture_too_large_to_be_normalised_by_itself_is_refused():
    system = small(depth=2, largest=1600)
    state = system.init(KEY, BATCH)
    large = {"image": np.zeros((1, 40, 48, 3), np.float32)}
    wanted = r"of 40x48 has more than config\.recipe\.largest=1600 pixels.*test_mode=published.*Make it smaller first"
    with pytest.raises(UserError, match=wanted):
        system.predict(state, large, KEY)
    with pytest.raises(UserError, match=r"largest=700: a picture of 40x48 needs tiles.*; set it to 784 or more"):
        small(depth=2, largest=700, test_mode="running").predict(state, large, KEY)
    pix2pix.recipe(depth=9)  # whose tiles would be larger than `largest`, and which takes smaller pictures
