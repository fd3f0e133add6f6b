"""SAGAN as one writes it in torch, its layers named as ours are numbered, and our parameters carried across.

It imports torch, so tests import it after `pytest.importorskip("torch")`.
"""

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils import spectral_norm
from torch_gan import CONVOLVED, put

from benchmarks.torch_gans import Norm


def conv(inputs, outputs, size, bias=True):
    """A convolution under spectral normalisation that keeps the size of the image."""
    return spectral_norm(nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=bias))


def double(x):
    return functional.interpolate(x, scale_factor=2, mode="nearest")


class Attention(nn.Module):
    def __init__(self, channels):
        super().__init__()
        narrow = max(channels // 8, 1)
        self.f, self.g, self.h = (conv(channels, narrow, 1, bias=False) for _ in range(3))
        self.v = conv(narrow, channels, 1, bias=False)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, x):
        f, g, h = (layer(x).flatten(2) for layer in (self.f, self.g, self.h))
        shares = torch.softmax(torch.bmm(f.transpose(1, 2), g), dim=1)  # s_ij, over i
        return self.gamma * self.v(torch.bmm(h, shares).reshape(len(x), -1, *x.shape[2:])) + x


class Up(nn.Module):
    """The generator's block."""

    def __init__(self, inputs, outputs, classes):
        super().__init__()
        self.norms = nn.ModuleList([Norm(classes, inputs), Norm(classes, outputs)])
        self.convs = nn.ModuleList([conv(inputs, outputs, 3), conv(outputs, outputs, 3), conv(inputs, outputs, 1)])

    def forward(self, x, labels):
        y = self.convs[0](double(torch.relu(self.norms[0](x, labels))))
        y = self.convs[1](torch.relu(self.norms[1](y, labels)))
        return y + self.convs[2](double(x))


class Down(nn.Module):
    """The discriminator's block; `first`: it sees the image."""

    def __init__(self, inputs, outputs, first=False, halve=True):
        super().__init__()
        self.first, self.halve = first, halve
        sizes = [(inputs, outputs, 3), (outputs, outputs, 3)] + [(inputs, outputs, 1)] * halve
        self.convs = nn.ModuleList([conv(*size) for size in sizes])

    def forward(self, x):
        y = self.convs[1](torch.relu(self.convs[0](x if self.first else torch.relu(x))))
        if not self.halve:
            return x + y
        return functional.avg_pool2d(self.convs[2](x), 2) + functional.avg_pool2d(y, 2)


class Generator(nn.Module):
    """For grey images of four times the base, with attention at twice the base."""

    def __init__(self, latent, width, base, classes):
        super().__init__()
        self.first = (2 * width, base, base)
        self.project = spectral_norm(nn.Linear(latent, base * base * 2 * width))
        self.blocks = nn.ModuleList([Up(2 * width, 2 * width, classes), Up(2 * width, width, classes)])
        self.attention = Attention(2 * width)
        self.norm, self.last = nn.BatchNorm2d(width), conv(width, 1, 3)

    def forward(self, z, labels):
        channels, height, width = self.first
        x = self.project(z).reshape(-1, height, width, channels).permute(0, 3, 1, 2)
        x = self.attention(self.blocks[0](x, labels))
        x = torch.relu(self.norm(self.blocks[1](x, labels)))
        return torch.tanh(self.last(x))


class Discriminator(nn.Module):
    """Of the same images, with attention at half their size."""

    def __init__(self, width, classes):
        super().__init__()
        down = [Down(1, width, first=True), Down(width, 2 * width), Down(2 * width, 2 * width, halve=False)]
        self.blocks, self.attention = nn.ModuleList(down), Attention(width)
        self.logit = spectral_norm(nn.Linear(2 * width, 1))
        self.projection = spectral_norm(nn.Embedding(classes, 2 * width), dim=1)

    def forward(self, x, labels):
        x = self.blocks[1](self.attention(self.blocks[0](x)))
        x = torch.relu(self.blocks[2](x)).sum(dim=(2, 3))
        return self.logit(x)[:, 0] + (self.projection(labels) * x).sum(dim=1)


def carry_across(state, generator, discriminator):
    """Copies our parameters, and the vectors of spectral normalisation, into torch's networks."""
    params, stats = state.params, state.stats
    put_generator(generator, params["generator"], stats["generator"])
    put_discriminator(discriminator, params["discriminator"], stats["discriminator"])


def put_generator(generator, params, stats):
    put_blocks(generator, "GeneratorBlock", params, stats)
    put_layer(generator.project, "Dense_0", params, stats)
    put_layer(generator.last, "Conv_0", params, stats)
    last_norm = params["ConditionalBatchNorm_0"]["BatchNorm_0"]
    put(torch, generator.norm.weight, last_norm["scale"])
    put(torch, generator.norm.bias, last_norm["bias"])


def put_discriminator(discriminator, params, stats):
    put_blocks(discriminator, "DiscriminatorBlock", params, stats)
    put_layer(discriminator.logit, "Dense_0", params, stats)
    put_layer(discriminator.projection, "projection", params, stats)


def put_blocks(network, name, params, stats):
    """Copies the blocks and the attention among them."""
    for index, block in enumerate(network.blocks):
        put_block(block, params[f"{name}_{index}"], stats[f"{name}_{index}"])
    for part in "fghv":
        put_layer(getattr(network.attention, part), part, params["SelfAttention_0"], stats["SelfAttention_0"])
    put(torch, network.attention.gamma, params["SelfAttention_0"]["gamma"])


def put_block(block, params, stats):
    for index, layer in enumerate(block.convs):
        put_layer(layer, f"Conv_{index}", params, stats)
    for index, norm in enumerate(getattr(block, "norms", ())):
        tables = params[f"ConditionalBatchNorm_{index}"]
        put(torch, norm.scale.weight, tables["scale"]["embedding"])
        put(torch, norm.shift.weight, tables["shift"]["embedding"])


def put_layer(layer, name, params, stats):
    """Copies a layer under spectral normalisation: its kernel or table, the vector u, its bias if it has one."""
    kept = {key: value for norm in stats if "SpectralNorm" in norm for key, value in stats[norm].items()}
    (u,) = [value for key, value in kept.items() if key.startswith(f"{name}/") and key.endswith("/u")]
    kernel = params[name].get("kernel", params[name].get("embedding"))
    order = {4: CONVOLVED, 2: (1, 0)}[kernel.ndim] if "kernel" in params[name] else (0, 1)
    put(torch, layer.weight_orig, kernel, order)
    put(torch, layer.weight_u, u[0])
    if "bias" in params[name]:
        put(torch, layer.bias, params[name]["bias"])
