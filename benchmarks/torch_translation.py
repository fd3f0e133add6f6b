"""CycleGAN, pix2pix and EDSR in torch, and their training steps, to compare with ours in `benchmarks.translation`.

They have as many parameters as ours (tests/benchmarks/test_benchmarks_translation.py), which are themselves compared
with torch in the tests of each system.
"""

import itertools
import random
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

Recipe = Mapping[str, Any]
Networks = Mapping[str, nn.Module]
WIDEST = 8  # most channels, in multiples of the first layer's
HALVINGS = {16: 1, 34: 2, 70: 3, 142: 4, 286: 5}  # of a PatchGAN, by its field
MEAN = (0.4488, 0.4371, 0.4040)  # of DIV2K, which EDSR subtracts


# --- networks -----------------------------------------------------------------------------------------------------


def normed(layer: nn.Module, width: int) -> list[nn.Module]:
    return [layer, nn.InstanceNorm2d(width), nn.ReLU(inplace=True)]


class Block(nn.Module):
    """A residual block of CycleGAN's generator."""

    def __init__(self, width: int):
        super().__init__()
        conv = lambda: nn.Conv2d(width, width, 3, padding=1, padding_mode="reflect")  # noqa: E731
        self.inner = nn.Sequential(*normed(conv(), width), conv(), nn.InstanceNorm2d(width))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Features plus what the convolutions add."""
        return x + self.inner(x)


def residual_generator(recipe: Recipe) -> nn.Sequential:
    """CycleGAN's generator, of images in [-1, 1]."""
    width, edge = recipe["width"], dict(kernel_size=7, padding=3, padding_mode="reflect")
    layers = normed(nn.Conv2d(3, width, **edge), width)
    for level in (1, 2):
        features = width * 2**level
        layers += normed(nn.Conv2d(features // 2, features, 3, 2, 1), features)
    layers += [Block(4 * width) for _ in range(recipe["blocks"])]
    for level in (1, 0):
        features = width * 2**level
        layers += normed(nn.ConvTranspose2d(2 * features, features, 3, 2, 1, 1), features)
    return nn.Sequential(*layers, nn.Conv2d(width, 3, **edge), nn.Tanh())


def patch_gan(field: int, width: int, inputs: int, norm: str) -> nn.Sequential:
    """A PatchGAN with instance or batch normalisation."""
    batch = norm == "batch"
    layers, last = [nn.Conv2d(inputs, width, 4, 2, 1), nn.LeakyReLU(0.2, inplace=True)], width
    for layer in range(1, HALVINGS[field] + 1):
        features = width * min(2**layer, WIDEST)
        layers.append(nn.Conv2d(last, features, 4, 2 if layer < HALVINGS[field] else 1, 1, bias=not batch))
        layers += [(nn.BatchNorm2d if batch else nn.InstanceNorm2d)(features), nn.LeakyReLU(0.2, inplace=True)]
        last = features
    return nn.Sequential(*layers, nn.Conv2d(last, 1, 4, 1, 1))


class UNet(nn.Module):
    """pix2pix's generator, of images in [-1, 1], with dropout in the first three blocks of its decoder."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        depth, width = recipe["depth"], recipe["width"]
        widths = [width * min(2**level, WIDEST) for level in range(depth)]
        self.down, self.up = nn.ModuleList(), nn.ModuleList()
        for level, (inputs, outputs) in enumerate(zip([3, *widths], widths, strict=False)):
            layers = [nn.LeakyReLU(0.2)] * (level > 0) + [nn.Conv2d(inputs, outputs, 4, 2, 1, bias=False)]
            layers += [nn.BatchNorm2d(outputs)] * (0 < level < depth - 1)
            self.down.append(nn.Sequential(*layers))
        for level in reversed(range(1, depth)):
            inputs, outputs = widths[level] * (1 if level == depth - 1 else 2), widths[level - 1]
            layers = [nn.ReLU(), nn.ConvTranspose2d(inputs, outputs, 4, 2, 1, bias=False), nn.BatchNorm2d(outputs)]
            self.up.append(nn.Sequential(*layers, *[nn.Dropout(recipe["dropout"])] * (level >= depth - 3)))
        self.last = nn.Sequential(nn.ReLU(), nn.ConvTranspose2d(2 * width, recipe["channels"], 4, 2, 1), nn.Tanh())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Translates NCHW images."""
        skips = []
        for down in self.down:
            x = down(x)
            skips.append(x)
        skips.pop()
        for up in self.up:
            x = torch.cat([skips.pop(), up(x)], 1)
        return self.last(x)


class EDSR(nn.Module):
    """EDSR, of images in [0, 1]."""

    def __init__(self, recipe: Recipe):
        super().__init__()
        width, scale = recipe["features"], recipe["scale"]
        conv = lambda inputs, outputs: nn.Conv2d(inputs, outputs, 3, padding=1)  # noqa: E731
        self.residual_scale = recipe["residual_scale"]
        self.head, self.body = conv(3, width), conv(width, width)
        self.blocks = nn.ModuleList(
            nn.Sequential(conv(width, width), nn.ReLU(inplace=True), conv(width, width))
            for _ in range(recipe["blocks"])
        )
        factors = (2, 2) if scale == 4 else (scale,)
        shuffles = [(conv(width, width * factor**2), nn.PixelShuffle(factor)) for factor in factors]
        self.tail = nn.Sequential(*itertools.chain(*shuffles), conv(width, 3))
        self.register_buffer("mean", torch.tensor(MEAN)[:, None, None])

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Enlarges NCHW images."""
        x = first = self.head((x - self.mean) * 255)
        for block in self.blocks:
            x = x + self.residual_scale * block(x)
        return self.tail(first + self.body(x)) / 255 + self.mean


def networks(system: str, recipe: Recipe) -> dict[str, nn.Module]:
    """The networks of a system, named as in the state."""
    if system == "cyclegan":
        judge = lambda: patch_gan(recipe["field"], recipe["discriminator_width"], 3, "instance")  # noqa: E731
        generators = {name: residual_generator(recipe) for name in ("a_to_b", "b_to_a")}
        return generators | {name: judge() for name in ("discriminator_a", "discriminator_b")}
    if system == "pix2pix":
        judge = patch_gan(recipe["field"], recipe["discriminator_width"], 3 + recipe["channels"], "batch")
        return {"generator": UNet(recipe), "discriminator": judge}
    return {"enlarger": EDSR(recipe)}


# --- training steps -----------------------------------------------------------------------------------------------


def adam(options: Mapping[str, Any], *nets: nn.Module) -> torch.optim.Adam:
    """Adam of several networks; the schedule is left out."""
    parameters = itertools.chain(*(net.parameters() for net in nets))
    betas = options.get("b1", 0.9), options.get("b2", 0.999)
    return torch.optim.Adam(parameters, options["learning_rate"], betas, fused=True)


class Pool:
    """Earlier translations."""

    def __init__(self, room: int):
        self.room, self.images = room, []

    def query(self, images: torch.Tensor) -> torch.Tensor:
        """Exchanges images with the pool."""
        chosen = []
        for image in images.detach():
            if len(self.images) < self.room:
                self.images.append(image)
            elif random.random() < 0.5:
                place = random.randrange(self.room)
                image, self.images[place] = self.images[place], image
            chosen.append(image)
        return torch.stack(chosen)


def frozen(nets: list[nn.Module], trained: bool) -> None:
    for net in nets:
        net.requires_grad_(trained)


def cyclegan_step(recipe: Recipe, nets: Networks) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A function of images of A and of B in [0, 1] that takes one step of CycleGAN."""
    there, back = nets["a_to_b"], nets["b_to_a"]
    judges = [nets["discriminator_a"], nets["discriminator_b"]]
    optimisers = adam(recipe["generator_optimiser"], there, back), adam(recipe["discriminator_optimiser"], *judges)
    pools, cycle, identity = [Pool(recipe["pool"]) for _ in range(2)], recipe["cycle"], recipe["identity"]

    def step(a, b):
        a, b = 2 * a - 1, 2 * b - 1
        frozen(judges, False)
        optimisers[0].zero_grad()
        fake_b, same_b = there(torch.cat([a, b])).split(len(a))
        fake_a, same_a = back(torch.cat([b, a])).split(len(a))
        loss = sum(((judge(fake) - 1) ** 2).mean() for judge, fake in zip(judges, (fake_a, fake_b), strict=True))
        loss = loss + cycle * (F.l1_loss(back(fake_b), a) + F.l1_loss(there(fake_a), b))
        loss = loss + cycle * identity * (F.l1_loss(same_b, b) + F.l1_loss(same_a, a))
        loss.backward()
        optimisers[0].step()
        frozen(judges, True)
        optimisers[1].zero_grad()
        for judge, pool, real, fake in zip(judges, pools, (a, b), (fake_a, fake_b), strict=True):
            truth, found = judge(torch.cat([real, pool.query(fake)])).split(len(real))
            (((truth - 1) ** 2).mean() / 2 + (found**2).mean() / 2).backward()
        optimisers[1].step()

    return step


def pix2pix_step(recipe: Recipe, nets: Networks) -> Callable[[torch.Tensor, torch.Tensor], None]:
    """A function of images and targets in [0, 1] that takes one step of pix2pix."""
    generator, judge = nets["generator"], nets["discriminator"]
    optimisers = adam(recipe["generator_optimiser"], generator), adam(recipe["discriminator_optimiser"], judge)

    def entropy(logits, target):
        return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, target))

    def step(images, targets):
        images, targets = 2 * images - 1, 2 * targets - 1
        made = generator(images)
        frozen([judge], True)
        optimisers[1].zero_grad()
        real = entropy(judge(torch.cat([images, targets], 1)), 1.0)
        fake = entropy(judge(torch.cat([images, made.detach()], 1)), 0.0)
        ((real + fake) / 2).backward()
        optimisers[1].step()
        frozen([judge], False)
        optimisers[0].zero_grad()
        fooling = entropy(judge(torch.cat([images, made], 1)), 1.0)
        (recipe["adversarial"] * fooling + recipe["l1"] * F.l1_loss(made, targets)).backward()
        optimisers[0].step()

    return step


def edsr_step(recipe: Recipe, nets: Networks) -> Callable[[torch.Tensor], None]:
    """A function of large images in [0, 1] that takes one step of EDSR; they are made smaller in it."""
    net, scale = nets["enlarger"], recipe["scale"]
    optimiser = adam(recipe["optimiser"], net)

    def step(images):
        small = F.interpolate(images, scale_factor=1 / scale, mode="bicubic", antialias=True)
        optimiser.zero_grad()
        F.l1_loss(net(small), images).backward()
        optimiser.step()

    return step


STEPS = {"cyclegan": cyclegan_step, "pix2pix": pix2pix_step, "edsr": edsr_step}
