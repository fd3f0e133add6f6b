"""Convolutions on CPU: cvjax's layers against torch's and Flax's.

    python -m benchmarks.convolution [--rounds=9] [--only=SUBSTRING]

Needs the extra `parity`. Contestants are timed alternately; a ratio is the median over the rounds. Prints the table and
writes the section `convolution` of BENCHMARKS.md (not with --only). Exits with 1 if a bar is missed.
"""

import os
import sys
from collections.abc import Callable
from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import torch
from absl import app, flags
from torch import nn as tnn
from torch.nn import functional as F

from benchmarks import report
from cvjax.nets import layers

ROUNDS = flags.DEFINE_integer("rounds", 9, "How often each contestant is timed.")
ONLY = flags.DEFINE_string("only", "", "Run the rows whose name contains this, and write no file.")
THREADS = len(os.sched_getaffinity(0))
Convs = tuple[Callable, Callable]
Contestant = Callable[[], object]
Contestants = dict[str, Callable[[], Contestant]]


# The layers of two libraries, with one signature: (features, kernel, stride, padding).


def our_layers() -> Convs:
    return partial(layers.Conv, use_bias=False), partial(layers.ConvTranspose, use_bias=False)


def flax_layers() -> Convs:
    def conv(features, kernel, stride=1, padding=0, groups=1):
        pads = ((padding, padding),) * 2
        return nn.Conv(features, (kernel,) * 2, stride, pads, feature_group_count=groups, use_bias=False)

    def conv_transpose(features, kernel, stride=1, padding=0, groups=1):
        assert groups == 1  # all that Flax has
        pads = ((kernel - 1 - padding,) * 2,) * 2
        return nn.ConvTranspose(features, (kernel,) * 2, (stride,) * 2, pads, use_bias=False)

    return conv, conv_transpose


# (a) A training step of DCGAN at 64 pixels: Radford et al. 2015, figure 1 and section 3.

BATCH, LATENT, WIDTH = 32, 100, 64


class Generator(nn.Module):
    """DCGAN's generator: 64-pixel images from latent vectors."""

    convs: Convs

    @nn.compact
    def __call__(self, z):
        """Applies the network."""
        x = z[:, None, None]
        for i, factor in enumerate([8, 4, 2, 1]):
            stride, padding = (2, 1) if i else (1, 0)
            x = self.convs[1](factor * WIDTH, 4, stride=stride, padding=padding)(x)
            x = nn.relu(nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)(x))
        return jnp.tanh(self.convs[1](3, 4, stride=2, padding=1)(x))


class Discriminator(nn.Module):
    """DCGAN's discriminator."""

    convs: Convs

    @nn.compact
    def __call__(self, x):
        """Applies the network."""
        for i, factor in enumerate([1, 2, 4, 8]):
            x = self.convs[0](factor * WIDTH, 4, stride=2, padding=1)(x)
            x = nn.BatchNorm(use_running_average=False, momentum=0.9, epsilon=1e-5)(x) if i else x
            x = nn.leaky_relu(x, 0.2)
        return self.convs[0](1, 4)(x).ravel()


def dcgan_in_jax(layers_of: Callable) -> Contestant:
    convs = layers_of()
    nets = {"generator": Generator(convs), "discriminator": Discriminator(convs)}
    tx = optax.adam(2e-4, b1=0.5)
    real, z = _normal(0, (BATCH, 64, 64, 3)), _normal(1, (BATCH, LATENT))
    variables = {name: net.init(jax.random.key(2), z if name == "generator" else real) for name, net in nets.items()}
    params = {name: v["params"] for name, v in variables.items()}
    stats = {name: v["batch_stats"] for name, v in variables.items()}
    opt = {name: tx.init(params[name]) for name in nets}

    def run(name, params, stats, x):
        y, new = nets[name].apply({"params": params[name], "batch_stats": stats[name]}, x, mutable="batch_stats")
        return y, {**stats, name: new["batch_stats"]}

    def bce(logits, label):
        return optax.sigmoid_binary_cross_entropy(logits, jnp.full_like(logits, label)).mean()

    def loss_d(own, params, stats, fake, real):
        params = {**params, "discriminator": own}
        on_real, stats = run("discriminator", params, stats, real)
        on_fake, stats = run("discriminator", params, stats, fake)
        return bce(on_real, 1.0) + bce(on_fake, 0.0), stats

    def loss_g(own, params, stats, z):
        params = {**params, "generator": own}
        fake, stats = run("generator", params, stats, z)
        on_fake, stats = run("discriminator", params, stats, fake)
        return bce(on_fake, 1.0), stats

    @partial(jax.jit, donate_argnums=0)
    def step(state, real, z):
        params, stats, opt = state
        fake, stats = run("generator", params, stats, z)
        for name, loss, batch in [("discriminator", loss_d, (fake, real)), ("generator", loss_g, (z,))]:
            gradient, stats = jax.grad(loss, has_aux=True)(params[name], params, stats, *batch)
            updates, moments = tx.update(gradient, opt[name])
            params = {**params, name: optax.apply_updates(params[name], updates)}
            opt = {**opt, name: moments}
        return params, stats, opt

    state = params, stats, opt

    def work():
        nonlocal state
        state = jax.block_until_ready(step(state, real, z))

    return work


def dcgan_in_torch() -> Contestant:
    torch.set_num_threads(THREADS)
    blocks = [tnn.ConvTranspose2d(LATENT, 8 * WIDTH, 4, bias=False), tnn.BatchNorm2d(8 * WIDTH), tnn.ReLU()]
    for factor in [4, 2, 1]:
        conv = tnn.ConvTranspose2d(2 * factor * WIDTH, factor * WIDTH, 4, 2, 1, bias=False)
        blocks += [conv, tnn.BatchNorm2d(factor * WIDTH), tnn.ReLU()]
    generator = tnn.Sequential(*blocks, tnn.ConvTranspose2d(WIDTH, 3, 4, 2, 1, bias=False), tnn.Tanh())
    blocks = [tnn.Conv2d(3, WIDTH, 4, 2, 1, bias=False), tnn.LeakyReLU(0.2)]
    for factor in [2, 4, 8]:
        conv = tnn.Conv2d(factor * WIDTH // 2, factor * WIDTH, 4, 2, 1, bias=False)
        blocks += [conv, tnn.BatchNorm2d(factor * WIDTH), tnn.LeakyReLU(0.2)]
    discriminator = tnn.Sequential(*blocks, tnn.Conv2d(8 * WIDTH, 1, 4, bias=False), tnn.Flatten(0))
    nets = (generator, discriminator)
    opt_g, opt_d = (torch.optim.Adam(net.parameters(), 2e-4, (0.5, 0.999), fused=True) for net in nets)
    real, z = _torch(0, (BATCH, 3, 64, 64)), _torch(1, (BATCH, LATENT, 1, 1))
    bce = F.binary_cross_entropy_with_logits
    ones, zeros = torch.ones(BATCH), torch.zeros(BATCH)

    def work():
        fake = generator(z)
        opt_d.zero_grad()
        (bce(discriminator(real), ones) + bce(discriminator(fake.detach()), zeros)).backward()
        opt_d.step()
        opt_g.zero_grad()
        # One forward pass for both updates; `inputs` avoids computing unused gradients.
        bce(discriminator(fake), ones).backward(inputs=list(generator.parameters()))
        opt_g.step()

    return work


# (b) The gradient of a gradient penalty: Gulrajani et al. 2017, equation 3.

CRITIC = [(3, 32), (32, 64), (64, 128), (128, 256)]


class Critic(nn.Module):
    """Scores images."""

    convs: Convs

    @nn.compact
    def __call__(self, x):
        """Applies the network."""
        for _, features in CRITIC:
            x = nn.leaky_relu(self.convs[0](features, 4, stride=2, padding=1)(x), 0.2)
        return x.mean((1, 2, 3))


def penalty_in_jax(layers_of: Callable) -> Contestant:
    critic, x = Critic(layers_of()), _normal(0, (BATCH, 64, 64, 3))
    variables = critic.init(jax.random.key(1), x)

    @jax.jit
    @jax.grad
    def step(variables, x):
        slope = jax.grad(lambda x: critic.apply(variables, x).sum())(x)
        return ((jnp.sqrt((slope**2).sum((1, 2, 3)) + 1e-12) - 1) ** 2).mean()

    return lambda: jax.block_until_ready(step(variables, x))


def penalty_in_torch() -> Contestant:
    torch.set_num_threads(THREADS)
    blocks = [block for a, b in CRITIC for block in (tnn.Conv2d(a, b, 4, 2, 1, bias=False), tnn.LeakyReLU(0.2))]
    critic, x = tnn.Sequential(*blocks), _torch(0, (BATCH, 3, 64, 64)).requires_grad_()

    def work():
        (slope,) = torch.autograd.grad(critic(x).mean((1, 2, 3)).sum(), x, create_graph=True)
        penalty = (((slope**2).sum((1, 2, 3)) + 1e-12).sqrt() - 1).pow(2).mean()
        torch.autograd.grad(penalty, list(critic.parameters()))

    return work


# (c), (d) One layer: its output, or its gradients with respect to image and kernel.


def layer_in_jax(layers_of: Callable, transposed, features, shape, kernel, stride, groups, gradients) -> Contestant:
    make = layers_of()[transposed]
    layer = make(features, kernel, stride=stride, padding=kernel // 2 - (kernel == 4), groups=groups)
    batch, channels, *size = shape
    x = _normal(0, (batch, *size, channels))
    variables = layer.init(jax.random.key(1), x)
    y = _normal(2, jax.eval_shape(layer.apply, variables, x).shape)
    forward = jax.jit(layer.apply)
    gradient = jax.jit(lambda variables, x, y: jax.vjp(layer.apply, variables, x)[1](y))
    if gradients:
        return lambda: jax.block_until_ready(gradient(variables, x, y))
    return lambda: jax.block_until_ready(forward(variables, x))


def layer_in_torch(transposed, features, shape, kernel, stride, groups, gradients) -> Contestant:
    torch.set_num_threads(THREADS)
    make = tnn.ConvTranspose2d if transposed else tnn.Conv2d
    padding = kernel // 2 - (kernel == 4)
    layer = make(shape[1], features, kernel, stride, padding, groups=groups, bias=False)
    x = _torch(0, shape).requires_grad_()
    y = torch.randn_like(layer(x))

    def forward():
        with torch.no_grad():
            layer(x)

    return (lambda: torch.autograd.grad(layer(x), [x, layer.weight], y)) if gradients else forward


def _normal(seed: int, shape: tuple[int, ...]) -> jax.Array:
    return jax.random.normal(jax.random.key(seed), shape)


def _torch(seed: int, shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def rows() -> dict[str, tuple[float | None, Contestants]]:
    """Returns {name: (bar on our time / torch's, contestants)}."""
    narrow, wide, thin = (32, 128, 16, 16), (32, 64, 32, 32), (8, 128, 32, 32)

    def layer(transposed, features, shape, kernel, stride, groups, gradients):
        settings = (transposed, features, shape, kernel, stride, groups, gradients)
        return contestants(layer_in_jax, layer_in_torch, *settings)

    return {
        f"DCGAN 64 px, training step, batch {BATCH}": (2.0, contestants(dcgan_in_jax, dcgan_in_torch)),
        "gradient penalty through four 4x4 stride 2": (2.0, contestants(penalty_in_jax, penalty_in_torch)),
        "depthwise 3x3, 128 channels, forward": (2.0, layer(False, 128, thin, 3, 1, 128, False)),
        "depthwise 3x3, 128 channels, gradients": (5.0, layer(False, 128, thin, 3, 1, 128, True)),
        "depthwise 7x7, 128 channels, gradients": (None, layer(False, 128, thin, 7, 1, 128, True)),
        "transposed 4x4 stride 2, forward": (None, layer(True, 64, narrow, 4, 2, 1, False)),
        "transposed 4x4 stride 2, gradients": (None, layer(True, 64, narrow, 4, 2, 1, True)),
        "3x3 stride 2, gradients": (None, layer(False, 128, wide, 3, 2, 1, True)),
        "3x3 in 8 groups, 64 channels, gradients": (None, layer(False, 64, wide, 3, 1, 8, True)),
        "3x3, 64 channels, forward": (None, layer(False, 64, wide, 3, 1, 1, False)),
        "3x3, 64 channels, gradients": (None, layer(False, 64, wide, 3, 1, 1, True)),
        "1x1, 64 channels, gradients": (None, layer(False, 64, wide, 1, 1, 1, True)),
    }


def contestants(in_jax: Callable, in_torch: Callable, *settings) -> Contestants:
    return {
        "ours": partial(in_jax, our_layers, *settings),
        "torch": partial(in_torch, *settings),
        "flax": partial(in_jax, flax_layers, *settings),
    }


def main(argv: list[str]) -> None:
    del argv
    lines = ["| work | bar | ours / torch | ours, ms | torch, ms | Flax's own, ms | Flax / ours |", "|" + "---|" * 7]
    print("\n".join(lines))
    missed = []
    for name, (bar, makers) in rows().items():
        if ONLY.value not in name:
            continue
        times = report.interleave(makers, ROUNDS.value)
        ours, theirs, flax = (f"{np.median(times[who]):.1f}" for who in makers)
        low, middle, high = report.ratio(times["ours"], times["torch"])
        to_flax = report.ratio(times["flax"], times["ours"])[1]
        missed += [name] if bar and middle > bar else []
        ratio = f"{middle:.2f} ({low:.2f} to {high:.2f})"
        lines.append(f"| {name} | {bar or ''} | {ratio} | {ours} | {theirs} | {flax} | {to_flax:.1f} |")
        print(lines[-1], flush=True)
    if not ONLY.value:
        report.write_section("convolution", "\n".join([HEADER, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


HEADER = f"""## Convolutions on CPU

`python -m benchmarks.convolution`: float32, {THREADS} threads each, no bias; torch in its default layout. Times are
medians over rounds in which all are timed in turn; ratios are medians of the rounds' ratios, with their quartiles.
{report.machine(["jax", "flax", "torch"])}.
"""

if __name__ == "__main__":
    app.run(main)
