"""Encoders and decoders beside diffusers' with random weights, the codebook beside brute force and torch."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cvjax.errors import UserError
from cvjax.generative.autoencoders import spatial
from cvjax.generative.autoencoders.spatial import Architecture, Decoder, Encoder

KEY = jax.random.key(0)


def count(module, inputs):
    shapes = jax.eval_shape(module.init, KEY, jax.ShapeDtypeStruct(inputs, jnp.float32))
    return sum(leaf.size for leaf in jax.tree.leaves(shapes))


def test_the_paper_s_f_8_has_its_number_of_parameters():
    sizes = Architecture(multipliers=(1, 2, 4, 4), code=4)
    total = count(Encoder(sizes), (1, 32, 32, 3)) + count(Decoder(sizes), (1, 4, 4, 4))
    assert total == 83_653_863  # of the published KL-f8, with both 1x1 convolutions around the code
    with_codes = count(Decoder(sizes, entries=16384), (1, 4, 4, 4)) - count(Decoder(sizes), (1, 4, 4, 4))
    assert with_codes == 16384 * 4


def from_diffusers(tensors, levels, blocks):
    """Our parameters of diffusers' AutoencoderKL: {name of the network: parameters}."""

    def layer(name):
        weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
        if weight.ndim == 1:
            return {"scale": weight, "bias": bias}
        return {"kernel": weight.transpose(2, 3, 1, 0) if weight.ndim == 4 else weight.T, "bias": bias}

    def block(name):
        found = {ours: layer(f"{name}.{ours}") for ours in ("norm1", "conv1", "norm2", "conv2")}
        shortcut = f"{name}.conv_shortcut"
        return found | ({"shortcut": layer(shortcut)} if f"{shortcut}.weight" in tensors else {})

    def ends(name):
        attention = f"{name}.mid_block.attentions.0"
        theirs = {"norm": "group_norm", "query": "to_q", "key": "to_k", "value": "to_v", "out": "to_out.0"}
        found = {f"middle{index}": block(f"{name}.mid_block.resnets.{index}") for index in (0, 1)}
        found["middle_attention"] = {ours: layer(f"{attention}.{there}") for ours, there in theirs.items()}
        for ours, there in {"first": "conv_in", "norm": "conv_norm_out", "last": "conv_out"}.items():
            found[ours] = layer(f"{name}.{there}")
        return found

    encoder, decoder = ends("encoder"), ends("decoder")
    encoder["code"], decoder["code"] = layer("quant_conv"), layer("post_quant_conv")
    for level in range(levels):
        for index in range(blocks):
            encoder[f"down{level}_{index}"] = block(f"encoder.down_blocks.{level}.resnets.{index}")
        up = levels - 1 - level
        for index in range(blocks + 1):
            decoder[f"up{up}_{index}"] = block(f"decoder.up_blocks.{level}.resnets.{index}")
        if level < levels - 1:
            encoder[f"halve{level}"] = layer(f"encoder.down_blocks.{level}.downsamplers.0.conv")
            decoder[f"double{up}"] = layer(f"decoder.up_blocks.{level}.upsamplers.0.conv")
    return {"encoder": encoder, "decoder": decoder}


@pytest.mark.parity
def test_equals_diffusers(monkeypatch):
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    # It does not need torchvision, and one that was built for another torch cannot be imported.
    monkeypatch.setattr("diffusers.utils.import_utils._torchvision_available", False)
    torch.manual_seed(0)
    names = {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
    options = dict(block_out_channels=(8, 16), layers_per_block=1, latent_channels=3, norm_num_groups=2)
    net = diffusers.AutoencoderKL(**names, **options).eval()
    with torch.no_grad():
        for tensor in net.parameters():  # biases too, and nothing so small that it would not be seen
            tensor.copy_(torch.randn_like(tensor) * (0.5 / max(np.prod(tensor.shape[1:]), 4) ** 0.5) + (tensor == 1))
        images = torch.rand(2, 3, 16, 12)
        posterior = net.encode(2 * images - 1).latent_dist
        wanted = posterior.mean, posterior.logvar
        painted = net.decode(wanted[0]).sample
    params = from_diffusers({name: t.numpy() for name, t in net.state_dict().items()}, 2, 1)
    sizes = Architecture(width=8, multipliers=(1, 2), blocks=1, groups=2)

    def run(images):
        mean, log_variance = Encoder(sizes).apply({"params": params["encoder"]}, images)
        return mean, log_variance, Decoder(sizes).apply({"params": params["decoder"]}, mean)

    found = jax.jit(run)(jnp.asarray(images.permute(0, 2, 3, 1).numpy()))
    wanted = [*wanted, (painted + 1) / 2]
    for ours, theirs in zip(found, wanted, strict=True):
        theirs = theirs.permute(0, 2, 3, 1).numpy()
        assert theirs.std() > 0.05
        np.testing.assert_allclose(ours, theirs, atol=1e-4)  # float32, some twenty layers


def test_nearest_is_the_entry_of_the_least_distance_and_of_several_the_first():
    random = np.random.default_rng(0)
    codes, codebook = random.normal(size=(2, 3, 4, 5)), random.normal(size=(17, 5))
    distances = np.square(codes[..., None, :] - codebook).sum(axis=-1)
    found = spatial.nearest(jnp.float32(codes), jnp.float32(codebook))
    np.testing.assert_array_equal(found, distances.argmin(axis=-1))
    twice = jnp.float32(np.concatenate([codebook[:4], codebook[:4]]))
    np.testing.assert_array_equal(spatial.nearest(twice, twice), [0, 1, 2, 3] * 2)


@pytest.mark.parity
def test_gradients_of_the_codebook_s_terms_are_torch_s():
    torch = pytest.importorskip("torch")
    random = np.random.default_rng(1)
    codes, codebook, push = (random.normal(size=s).astype(np.float32) for s in ((2, 3, 3, 4), (6, 4), (2, 3, 3, 4)))

    def loss(codes, codebook):
        entries = codebook[spatial.nearest(codes, codebook)]
        first = spatial.squared_distance(jax.lax.stop_gradient(codes), entries)
        second = spatial.squared_distance(codes, jax.lax.stop_gradient(entries))
        passed = spatial.straight_through(codes, entries)
        return (first + 0.25 * second).mean() + (passed * push).sum(), passed

    arrays = jnp.asarray(codes), jnp.asarray(codebook)
    (value, passed), found = jax.value_and_grad(loss, (0, 1), has_aux=True)(*arrays)
    z, e = (torch.tensor(x, requires_grad=True) for x in (codes, codebook))
    chosen = e[torch.cdist(z.reshape(-1, 4), e).argmin(dim=1)].reshape(z.shape)
    terms = (chosen - z.detach()).pow(2).sum(-1).mean() + 0.25 * (z - chosen.detach()).pow(2).sum(-1).mean()
    through = z + (chosen - z).detach()
    total = terms + (through * torch.tensor(push)).sum()
    total.backward()
    np.testing.assert_allclose(value, total.item(), rtol=1e-5)
    np.testing.assert_allclose(passed, through.detach().numpy(), atol=1e-6)
    for ours, theirs in zip(found, (z.grad, e.grad), strict=True):
        np.testing.assert_allclose(ours, theirs.numpy(), atol=1e-6)


def test_entries_without_use_become_codes_of_the_batch():
    codebook, codes = jnp.zeros((4, 2)), jnp.arange(1.0, 13.0).reshape(1, 2, 3, 2)
    usage = jnp.array([0.5, 0.4, 0.09, 0.01])
    found, after = spatial.replace_unused(KEY, codebook, usage, codes, 0.1)  # of an even share, .025 of all
    np.testing.assert_array_equal(found[:3], codebook[:3])
    assert any((found[3] == row).all() for row in codes.reshape(-1, 2))
    np.testing.assert_allclose(after, [0.5, 0.4, 0.09, 0.25])
    kept = spatial.replace_unused(KEY, codebook, usage.at[3].set(0), codes, 0.0)
    np.testing.assert_array_equal(kept[0], codebook)
    np.testing.assert_allclose(spatial.entry_shares(jnp.array([[0, 2], [2, 2]]), 4), [0.25, 0, 0.75, 0])


@pytest.mark.parametrize(
    "sizes, message",
    [
        (Architecture(multipliers=()), "one for each size"),
        (Architecture(multipliers=(1, 2, 4, 4)), "halve the image 3 times, but 12 x 12 is not a multiple of 8"),
        (Architecture(attention=(5,)), r"no features have the height 5; expected some of \[12, 6, 3\]"),
    ],
)
def test_sizes_that_do_not_fit(sizes, message):
    with pytest.raises(UserError, match=message):
        sizes.check((12, 12))
