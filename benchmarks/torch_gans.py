"""The GANs of `cvjax.generative.gans` in torch: networks, losses and a training step."""

import itertools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cvjax.generative.gans import gan


def dcgan(recipe: Mapping[str, Any], normalise: bool) -> tuple[nn.Module, nn.Module]:
    """Returns DCGAN's generator and discriminator, the latter optionally with batch normalisation."""
    (height, _, channels), latent = recipe["shape"], recipe["latent"]
    width, kernel, base = (recipe[key] for key in ("width", "kernel", "base"))
    levels = gan.count_doublings((height, height, channels), base)
    widths = [width * 2**level for level in range(levels)]
    window = dict(kernel_size=kernel, stride=2, padding=(kernel - 1) // 2)
    up = [nn.Linear(latent, base**2 * widths[-1], bias=False), nn.Unflatten(1, (widths[-1], base, base))]
    up += [nn.BatchNorm2d(widths[-1]), nn.ReLU()]
    for narrow, wide in reversed(list(itertools.pairwise(widths))):
        double = nn.ConvTranspose2d(wide, narrow, **window, output_padding=kernel % 2, bias=False)
        up += [double, nn.BatchNorm2d(narrow), nn.ReLU()]
    up += [nn.ConvTranspose2d(width, channels, **window, output_padding=kernel % 2), nn.Tanh()]
    down = [nn.Conv2d(channels, width, **window), nn.LeakyReLU(0.2)]
    for narrow, wide in itertools.pairwise(widths):
        norm = [nn.BatchNorm2d(wide)] if normalise else []
        down += [nn.Conv2d(narrow, wide, **window, bias=not normalise), *norm, nn.LeakyReLU(0.2)]
    down += [nn.Flatten(), nn.Linear(base**2 * widths[-1], 1), nn.Flatten(0)]
    return nn.Sequential(*up), nn.Sequential(*down)


# SAGAN.


def _conv(inputs: int, outputs: int, size: int, bias: bool = True) -> nn.Module:
    return spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))


class Norm(nn.Module):
    """Class-conditional batch normalisation."""

    def __init__(self, classes, channels):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.scale, self.shift = nn.Embedding(classes, channels), nn.Embedding(classes, channels)
        nn.init.ones_(self.scale.weight)
        nn.init.zeros_(self.shift.weight)

    def forward(self, x, labels):
        """Returns the normalised features."""
        return self.norm(x) * self.scale(labels)[..., None, None] + self.shift(labels)[..., None, None]


class Attention(nn.Module):
    """Self-attention over the positions of an image."""

    def __init__(self, channels):
        super().__init__()
        narrow = max(channels // 8, 1)
        self.f, self.g, self.h = (_conv(channels, narrow, 1, bias=False) for _ in range(3))
        self.v, self.gamma = _conv(narrow, channels, 1, bias=False), nn.Parameter(torch.zeros(()))

    def forward(self, x):
        """Returns the features plus attention."""
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))
        shares = torch.softmax(torch.bmm(f.transpose(1, 2), g), dim=1)
        return self.gamma * self.v(torch.bmm(h, shares).view(len(x), -1, *x.shape[2:])) + x


class Up(nn.Module):
    """A residual block that doubles the resolution."""

    def __init__(self, classes, inputs, outputs):
        super().__init__()
        self.norms = nn.ModuleList([Norm(classes, inputs), Norm(classes, outputs)])
        self.first, self.second = _conv(inputs, outputs, 3), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1)

    def forward(self, x, labels):
        """Returns the features at twice the resolution."""
        y = self.first(F.interpolate(torch.relu(self.norms[0](x, labels)), scale_factor=2))
        y = self.second(torch.relu(self.norms[1](y, labels)))
        return y + F.interpolate(self.shortcut(x), scale_factor=2)


class Down(nn.Module):
    """A residual block that halves the resolution, or keeps it."""

    def __init__(self, inputs, outputs, first=False, halve=True):
        super().__init__()
        self.begins, self.halves = first, halve
        self.first, self.second = _conv(inputs, outputs, 3), _conv(outputs, outputs, 3)
        self.shortcut = _conv(inputs, outputs, 1) if halve else None

    def forward(self, x):
        """Returns the features."""
        y = self.second(torch.relu(self.first(x if self.begins else torch.relu(x))))
        if not self.halves:
            return x + y
        return self.shortcut(F.avg_pool2d(x, 2)) + F.avg_pool2d(y, 2)


class SaganGenerator(nn.Module):
    """SAGAN's class-conditional generator."""

    def __init__(self, shape, classes, latent, width, base, attention):
        super().__init__()
        widths = [width * min(2**level, 16) for level in range(gan.count_doublings(shape, base))][::-1]
        self.base, self.attention_at = base, attention
        self.project = spectral_norm(nn.Linear(latent, base**2 * widths[0]))
        pairs = itertools.pairwise([widths[0], *widths])
        self.blocks = nn.ModuleList([Up(classes, inputs, outputs) for inputs, outputs in pairs])
        sizes = [base * 2 ** (n + 1) for n in range(len(widths))]
        self.attention = Attention(widths[sizes.index(attention)]) if attention else None
        self.norm, self.last = nn.BatchNorm2d(width), _conv(width, shape[2], 3)

    def forward(self, z, labels):
        """Returns images in [-1, 1]."""
        x = self.project(z).view(len(z), -1, self.base, self.base)
        for block in self.blocks:
            x = block(x, labels)
            x = self.attention(x) if x.shape[2] == self.attention_at else x
        return torch.tanh(self.last(torch.relu(self.norm(x))))


class SaganDiscriminator(nn.Module):
    """SAGAN's projection discriminator."""

    def __init__(self, shape, classes, latent, width, base, attention):
        super().__init__()
        widths = [width * min(2**level, 16) for level in range(gan.count_doublings(shape, base))]
        pairs = list(itertools.pairwise([shape[2], *widths]))
        blocks = [Down(inputs, outputs, first=n == 0) for n, (inputs, outputs) in enumerate(pairs)]
        self.blocks = nn.ModuleList([*blocks, Down(widths[-1], widths[-1], halve=False)])
        sizes, self.attention_at = [shape[0] // 2 ** (n + 1) for n in range(len(widths))], attention
        self.attention = Attention(widths[sizes.index(attention)]) if attention else None
        self.logit = spectral_norm(nn.Linear(widths[-1], 1))
        self.projection = spectral_norm(nn.Embedding(classes, widths[-1]))

    def forward(self, x, labels):
        """Returns one logit per image."""
        for block in self.blocks:
            x = block(x)
            x = self.attention(x) if x.shape[2] == self.attention_at and block.halves else x
        x = torch.relu(x).sum(dim=(2, 3))
        return self.logit(x)[:, 0] + (self.projection(labels) * x).sum(dim=1)


def sagan(recipe: Mapping[str, Any]) -> tuple[nn.Module, nn.Module]:
    """Returns SAGAN's generator and discriminator."""
    sizes = {key: recipe[key] for key in ("shape", "classes", "latent", "width", "base", "attention")}
    return SaganGenerator(**sizes), SaganDiscriminator(**sizes)


# Training steps.


def adam(net: nn.Module, options: Mapping[str, Any]) -> torch.optim.Optimizer:
    """Returns fused Adam."""
    betas = (options.get("b1", 0.9), options.get("b2", 0.999))
    return torch.optim.Adam(net.parameters(), options["learning_rate"], betas, fused=True)


def stepper(config: Mapping[str, Any], generator: nn.Module, discriminator: nn.Module) -> Callable[..., None]:
    """Returns a function (images, labels) that takes one training step of the experiment's GAN."""
    recipe, training = config["recipe"], config["recipe"]["training"]
    adam_g = adam(generator, recipe["generator_optimiser"])
    adam_d = adam(discriminator, recipe["discriminator_optimiser"])
    average = AveragedModel(generator, multi_avg_fn=get_ema_multi_avg_fn(training["ema"]), use_buffers=True)
    update = {
        "generative.gans.gan": _dcgan_losses,
        "generative.gans.wgan": _wgan_losses,
        "generative.gans.sagan": _sagan_losses,
    }
    discriminator_loss, generator_loss = update[config["system"]](recipe)
    count = training["discriminator_steps"]

    def draw(images):
        z = torch.empty(len(images), recipe["latent"], device=images.device)
        return z.uniform_(-1, 1) if recipe["prior"] == "uniform" else z.normal_()

    def step(images, labels=None):
        given = () if recipe["classes"] is None else (labels,)
        for part in (2 * images - 1).chunk(count):
            with torch.set_grad_enabled(count == 1):  # one forward pass for both updates, as in ours
                fake = generator(draw(part), *given)
            adam_d.zero_grad()
            discriminator_loss(discriminator, part, fake.detach(), *given).backward()
            adam_d.step()
        if count > 1:
            fake = generator(draw(part), *given)
        adam_g.zero_grad()
        # `inputs` avoids computing the discriminator's unused gradients.
        generator_loss(discriminator(fake, *given)).backward(inputs=list(generator.parameters()))
        adam_g.step()
        average.update_parameters(generator)

    return step


def _dcgan_losses(recipe: Mapping[str, Any]) -> tuple[Callable, Callable]:
    def cross_entropy(logits, label):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, label))

    def of_discriminator(discriminator, real, fake):
        on_real, on_fake = discriminator(real), discriminator(fake)
        return cross_entropy(on_real, recipe["training"]["real_label"]) + cross_entropy(on_fake, 0.0)

    return of_discriminator, lambda logits: cross_entropy(logits, 1.0)


def _wgan_losses(recipe: Mapping[str, Any]) -> tuple[Callable, Callable]:
    def of_critic(critic, real, fake):
        share = torch.rand(len(real), 1, 1, 1, device=real.device)
        mixed = (share * real + (1 - share) * fake).requires_grad_(True)
        (slope,) = torch.autograd.grad(critic(mixed).sum(), mixed, create_graph=True)
        on_real, on_fake = critic(torch.cat([real, fake])).chunk(2)
        return on_fake.mean() - on_real.mean() + recipe["penalty"] * ((slope.flatten(1).norm(dim=1) - 1) ** 2).mean()

    return of_critic, lambda logits: -logits.mean()


def _sagan_losses(recipe: Mapping[str, Any]) -> tuple[Callable, Callable]:
    def of_discriminator(discriminator, real, fake, labels):
        on_real, on_fake = discriminator(torch.cat([real, fake]), torch.cat([labels, labels])).chunk(2)
        return torch.relu(1 - on_real).mean() + torch.relu(1 + on_fake).mean()

    return of_discriminator, lambda logits: -logits.mean()
