"""DDPM's U-Net in torch, and its training step, to compare with ours in `benchmarks.diffusion`.

Its layers are named as ours; with our weights it computes the same (tests/benchmarks/test_benchmarks_diffusion.py).
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn

from cvjax.generative.diffusion.process import Process
from cvjax.generative.diffusion.unet import count_groups

Recipe = Mapping[str, Any]
EPSILON = 1e-6  # of the normalisation, as in TensorFlow and Flax


# --- the network --------------------------------------------------------------------------------------------------


def norm(channels: int, groups: int) -> nn.GroupNorm:
    """Group normalisation in as many groups as ours."""
    return nn.GroupNorm(count_groups(channels, groups), channels, EPSILON)


class ResidualBlock(nn.Module):
    """Two convolutions and what the step adds between them."""

    def __init__(self, inputs: int, outputs: int, condition: int, dropout: float, groups: int):
        super().__init__()
        self.norm1, self.conv1 = norm(inputs, groups), nn.Conv2d(inputs, outputs, 3, padding=1)
        self.condition = nn.Linear(condition, outputs)
        self.norm2, self.conv2 = norm(outputs, groups), nn.Conv2d(outputs, outputs, 3, padding=1)
        self.dropout = nn.Dropout(dropout)
        self.shortcut = nn.Conv2d(inputs, outputs, 1) if inputs != outputs else nn.Identity()

    def forward(self, x: torch.Tensor, condition: torch.Tensor) -> torch.Tensor:
        """Features plus what the convolutions add; the condition comes after its swish."""
        y = self.conv1(F.silu(self.norm1(x))) + self.condition(condition)[:, :, None, None]
        return self.shortcut(x) + self.conv2(self.dropout(F.silu(self.norm2(y))))


class Attention(nn.Module):
    """Self-attention over all places."""

    def __init__(self, channels: int, heads: int, groups: int):
        super().__init__()
        self.heads, self.norm = heads, norm(channels, groups)
        self.query, self.key, self.value, self.out = (nn.Linear(channels, channels) for _ in range(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features plus what is attended to."""
        places = self.norm(x).flatten(2).transpose(1, 2)
        query, key, value = (
            layer(places).unflatten(2, (self.heads, -1)).transpose(1, 2) for layer in (self.query, self.key, self.value)
        )
        attended = F.scaled_dot_product_attention(query, key, value).transpose(1, 2).flatten(2)
        return x + self.out(attended).transpose(1, 2).unflatten(2, x.shape[2:])


class UNet(nn.Module):
    """DDPM's U-Net of NCHW images."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        sizes, (height, _, colours) = recipe["unet"], recipe["shape"]
        self.sizes, self.height, self.layers = sizes, height, nn.ModuleDict()
        width, condition = sizes["width"], 4 * sizes["width"]
        channels, levels = [width * multiplier for multiplier in sizes["multipliers"]], len(sizes["multipliers"])
        layers = self.layers
        layers["step1"], layers["step2"] = nn.Linear(width, condition), nn.Linear(condition, condition)
        layers["first"] = nn.Conv2d(colours, width, 3, padding=1)
        kept, last = [width], width

        def block(name: str, inputs: int, level: int) -> int:
            options = condition, sizes["dropout"], sizes["groups"]
            layers[name] = ResidualBlock(inputs, channels[level], *options)
            if name.startswith("middle0") or (name[0] in "du" and self.height >> level in sizes["attention"]):
                layers[f"{name}_attention"] = Attention(channels[level], sizes["heads"], sizes["groups"])
            return channels[level]

        for level in range(levels):
            for index in range(sizes["blocks"]):
                last = block(f"down{level}_{index}", last, level)
                kept.append(last)
            if level < levels - 1:
                layers[f"halve{level}"] = nn.Conv2d(last, last, 3, 2)
                kept.append(last)
        for name in ("middle0", "middle1"):
            last = block(name, last, levels - 1)
        for level in reversed(range(levels)):
            for index in range(sizes["blocks"] + 1):
                last = block(f"up{level}_{index}", last + kept.pop(), level)
            if level:
                layers[f"double{level}"] = nn.Conv2d(last, last, 3, padding=1)
        layers["norm"], layers["last"] = norm(last, sizes["groups"]), nn.Conv2d(last, colours, 3, padding=1)

    def forward(self, x: torch.Tensor, steps: torch.Tensor) -> torch.Tensor:
        """Predicts the noise."""
        sizes, layers, levels = self.sizes, self.layers, len(self.sizes["multipliers"])
        half = sizes["width"] // 2
        frequencies = torch.exp(-math.log(10_000) / (half - 1) * torch.arange(half, device=x.device))
        angles = steps[:, None] * frequencies
        condition = layers["step1"](torch.cat([angles.sin(), angles.cos()], 1))
        condition = F.silu(layers["step2"](F.silu(condition)))

        def stage(x: torch.Tensor, name: str) -> torch.Tensor:
            x = layers[name](x, condition)
            return layers[f"{name}_attention"](x) if f"{name}_attention" in layers else x

        x = layers["first"](x)
        kept = [x]
        for level in range(levels):
            for index in range(sizes["blocks"]):
                x = stage(x, f"down{level}_{index}")
                kept.append(x)
            if level < levels - 1:
                x = layers[f"halve{level}"](F.pad(x, (0, 1, 0, 1)))
                kept.append(x)
        for name in ("middle0", "middle1"):
            x = stage(x, name)
        for level in reversed(range(levels)):
            for index in range(sizes["blocks"] + 1):
                x = stage(torch.cat([x, kept.pop()], 1), f"up{level}_{index}")
            if level:
                x = layers[f"double{level}"](F.interpolate(x, scale_factor=2.0))
        return layers["last"](F.silu(layers["norm"](x)))


# --- its training step --------------------------------------------------------------------------------------------


def training_step(recipe: Recipe, net: nn.Module) -> Callable[[torch.Tensor], None]:
    """A function of NCHW images in [0, 1] that takes one step of Adam down the simple error of the noise."""
    options, levels = recipe["optimiser"], recipe["levels"] - 1
    adam = torch.optim.Adam(net.parameters(), options["learning_rate"], fused=True)
    average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(recipe["ema"]))
    shares = torch.from_numpy(Process(**recipe["process"]).alpha_bars)

    def step(images):
        clean = 2 * torch.round(images * levels) / levels - 1
        steps = torch.randint(len(shares), (len(images),))
        share, noise = shares[steps, None, None, None], torch.randn_like(clean)
        adam.zero_grad()
        F.mse_loss(net(share.sqrt() * clean + (1 - share).sqrt() * noise, steps), noise).backward()
        torch.nn.utils.clip_grad_norm_(net.parameters(), options["clip"])
        adam.step()
        average.update_parameters(net)

    return step
