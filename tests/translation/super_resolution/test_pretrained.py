"""Networks that are trained already: nothing is trained, what enlarges nothing is refused, margins are narrow."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.core import Network
from cvjax.data import folder
from cvjax.errors import UserError
from cvjax.nets.rrdb import RRDBNet
from cvjax.programs import enlarged
from cvjax.programs.images import save_image
from cvjax.translation.super_resolution import pretrained
from cvjax.translation.super_resolution.edsr import EDSR

KEY = jax.random.key(0)


def system_of(net, **options):
    recipe = pretrained.recipe(Network(net, (16, 16, 3)), **options)
    return recipe, recipe.init(KEY, {"image": jnp.zeros((1, 16, 16, 3))})


def test_the_network_is_held_and_not_trained():
    recipe, state = system_of(RRDBNet(1, 2, 1))
    assert recipe.train_step is None and not state.params and set(state.frozen) == set(recipe.networks) == {"network"}
    assert recipe.predict.__self__.scale == 4
    with pytest.raises(UserError, match=r"config\.borrow\.network: a Dense enlarges nothing\. Give package:sr-vulkan"):
        pretrained.recipe(Network(nn.Dense(3), (16, 16, 3)))


def test_tiles_are_seen_with_the_margin_that_is_allowed():
    image = jnp.float32(np.random.default_rng(0).uniform(size=(1, 21, 30, 3)))
    net = EDSR(2, 1, 4)
    assert net.reach == 6
    for margin, seen, equal in ((6, 6, True), (32, 6, True), (2, 2, False)):
        recipe, state = system_of(net, tile=4, margin=margin)
        assert recipe.predict.__self__.margin == seen
        whole = jnp.clip(net.apply(state.frozen["network"], image), 0, 1)
        found = recipe.predict(state, {"image": image}, KEY)["image"]
        assert found.shape == whole.shape == (1, 42, 60, 3)
        inside = slice(2 * 6, -2 * 6)
        assert (np.abs(found - whole)[:, inside, inside].max() < 1e-5) == equal


def test_a_table_has_all_ways_to_enlarge(monkeypatch, tmp_path, capsys):
    systems = {"one": EDSR(2, 1, 4), "two": EDSR(2, 1, 2), "other": EDSR(3, 1, 2)}

    def load(source):
        recipe, state = system_of(systems[source])
        return recipe.eval_step.__self__, state

    monkeypatch.setattr(enlarged, "load", load)
    monkeypatch.setattr(enlarged, "ROWS", slice(20, 53))
    enlarged.main(["one", "two", f"--output={tmp_path / 'all.png'}"])
    head, names, *lines = capsys.readouterr().out.splitlines()[-6:]
    assert head.startswith("32x256, 2 times as large; Y of BT.601") and names.split()[:2] == ["psnr_y", "ssim_y"]
    assert [line.split()[0] for line in lines] == ["bicubic", "lanczos", "one", "two"]
    values = {name: [float(value) for value in rest[:2]] for name, *rest in map(str.split, lines)}
    assert values["lanczos"][0] > values["bicubic"][0] > values["one"][0] and values["one"] != values["two"]
    assert folder.decode(tmp_path / "all.png", 3).shape == (32, 5 * 256, 3)
    with pytest.raises(UserError, match=r"enlarge by the same factor; these: one 2, other 3"):
        enlarged.main(["one", "other"])
    with pytest.raises(UserError, match=r"--output=.*all\.jpg: .*must end in \.png"):
        enlarged.main(["one", f"--output={tmp_path / 'all.jpg'}"])
    for side in (3, 15):  # pixels; 15 at a factor of 2 leave 10 without the borders
        save_image(tmp_path / "small.png", np.zeros((side, 20, 3), np.float32))
        with pytest.raises(
            UserError, match=rf"--input: a picture of {side}x20 is too small .* each side needs 16 pixels"
        ):
            enlarged.main(["one", f"--input={tmp_path / 'small.png'}"])
