"""Style transfer's descent and the network of 26 styles, beside the same in torch.

    python -m benchmarks.style [--rounds=7] [--only=SUBSTRING]

Needs the extra `parity`. Pictures and weights are random. Contestants take turns in each round, each in a process of
its own. A time is that of one evaluation of the loss and its gradient, with the optimiser's work on it. Writes the
section `style` of BENCHMARKS.md, and exits with 1 if a bar is missed; --only writes no file.
"""

import functools
import sys
from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import torch
from absl import app
from torch import nn
from torch.nn import functional as F

from benchmarks import report, steps
from benchmarks.detectors import ONLY, ROUNDS
from cvjax import optim
from cvjax.nets.capture import activations_of
from cvjax.nets.transform_net import TransformNet
from cvjax.nets.vgg import DEPTHS, VGG, WIDTHS
from cvjax.translation.style_losses import Objective
from cvjax.translation.style_transfer import transfer

BAR = 1.0  # our time by torch's
EVALUATIONS = 10  # of one call
HISTORY = 10  # steps that L-BFGS remembers
# name: arguments of the contestants
CASES = {
    "Gatys with VGG-16, 256 x 256, L-BFGS": dict(size=256, width=64, optimiser="lbfgs"),
    "Gatys with VGG-16, 256 x 256, Adam": dict(size=256, width=64, optimiser="adam"),
    "26 styles, 512 x 512, one picture": dict(size=512, widths=(32, 32, 32), blocks=6, expand=(8, 4)),
}
OBJECTIVE = Objective()
counted = {"evaluations": 0}  # of the last call in this process


def picture(seed: int, size: int) -> np.ndarray:
    """A random picture that is smooth enough to have structure in all layers."""
    coarse = np.random.default_rng(seed).random((1, size // 8, size // 8, 3), np.float32)
    return np.asarray(jax.image.resize(coarse, (1, size, size, 3), "cubic"))[0]


# --- descent ------------------------------------------------------------------------------------------------------


def our_descent(case: Mapping) -> Callable[[], None]:
    """A function that descends for `EVALUATIONS` from the content."""
    net = VGG(16, width=case["width"], pooling="average")
    content, style = (jnp.asarray(picture(seed, case["size"])) for seed in range(2))
    held = jax.jit(net.init)(jax.random.key(0), content[None])
    tx = optim.build(dict(name=case["optimiser"], learning_rate=1.0 if case["optimiser"] == "lbfgs" else 0.02))

    @jax.jit
    def descend(held, content, style):
        see = functools.partial(activations_of(net, OBJECTIVE.layers), held)
        shares = jnp.ones(1)
        return transfer(jax.random.key(0), see, content, style[None], shares, OBJECTIVE, tx, (EVALUATIONS,))

    def work():
        _, _, counts = jax.block_until_ready(descend(held, content, style))
        counted["evaluations"] = int(counts[-1])

    return work


class Features(nn.Module):
    """The layers of VGG-16 that the objective needs, with average pooling."""

    def __init__(self, width: int):
        super().__init__()
        self.convs, inputs = nn.ModuleDict(), 3
        for stage, (count, scale) in enumerate(zip(DEPTHS[16], WIDTHS, strict=True), start=1):
            for index in range(1, count + 1):
                self.convs[f"relu{stage}_{index}"] = nn.Conv2d(inputs, scale * width, 3, padding=1)
                inputs = scale * width
                if f"relu{stage}_{index}" == "relu5_1":
                    return

    def forward(self, x: torch.Tensor) -> dict[str, torch.Tensor]:
        """Activations by layer."""
        found = {}
        for layer, conv in self.convs.items():
            x = F.relu(conv(x if not layer.endswith("_1") or layer == "relu1_1" else F.avg_pool2d(x, 2)))
            found[layer] = x
        return found


def torch_descent(case: Mapping) -> Callable[[], None]:
    """The same in torch."""
    torch.set_num_threads(steps.THREADS)
    torch.manual_seed(0)
    net = Features(case["width"]).requires_grad_(False)
    content, style = (torch.tensor(picture(seed, case["size"]).transpose(2, 0, 1)[None].copy()) for seed in range(2))

    def gram(x):
        flat = x.flatten(2)[0]
        return flat @ flat.T / flat.shape[1]

    weights = OBJECTIVE.weights

    def work():
        wanted = {layer: net(content)[layer] for layer in OBJECTIVE.content}
        grams = {layer: gram(x) for layer, x in net(style).items() if layer in weights}
        made = content.clone().requires_grad_()
        count = 0

        def closure():
            nonlocal count
            count += 1
            optimiser.zero_grad()
            found = net(made)
            loss = sum(0.5 * ((found[layer] - x) ** 2).sum() for layer, x in wanted.items()) * OBJECTIVE.alpha
            for layer, weight in weights.items():
                difference = gram(found[layer]) - grams[layer]
                loss = loss + OBJECTIVE.beta * weight * (difference**2).sum() / (4 * len(difference) ** 2)
            loss.backward()
            return loss

        if case["optimiser"] == "adam":
            optimiser = torch.optim.Adam([made], 0.02, fused=True)
            for _ in range(EVALUATIONS):
                optimiser.step(closure)
        else:
            options = dict(max_iter=EVALUATIONS, max_eval=EVALUATIONS, history_size=HISTORY)
            optimiser = torch.optim.LBFGS([made], tolerance_grad=0, tolerance_change=0, **options)
            optimiser.step(closure)
        counted["evaluations"] = count

    return work


# --- the network of styles ----------------------------------------------------------------------------------------


def our_network(case: Mapping) -> Callable[[], None]:
    """A function that repaints a picture."""
    net = TransformNet(26, case["widths"], case["blocks"], case["expand"])
    images, shares = jnp.asarray(picture(0, case["size"]))[None], jnp.full((1, 26), 1 / 26)
    held = jax.jit(net.init)(jax.random.key(0), images)
    apply, counted["evaluations"] = jax.jit(net.apply), 1
    return lambda: jax.block_until_ready(apply(held, images, shares))


class StyledConv(nn.Module):
    """A convolution after reflection, with conditional instance normalisation."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, upsample: bool = False):
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, bias=False, padding_mode="reflect")
        self.scale, self.shift = nn.Parameter(torch.ones(26, outputs)), nn.Parameter(torch.zeros(26, outputs))
        self.upsample = upsample

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """Features in the blend of the shares."""
        x = F.interpolate(x, scale_factor=2, mode="nearest") if self.upsample else x
        scale, shift = ((shares @ table)[:, :, None, None] for table in (self.scale, self.shift))
        return F.instance_norm(self.conv(x)) * scale + shift


class Transform(nn.Module):
    """The network in torch."""

    def __init__(self, widths: tuple[int, ...], blocks: int, expand: tuple[int, ...]):
        super().__init__()
        first, second, last = widths
        self.contract = nn.ModuleList(
            [StyledConv(3, first, 9), StyledConv(first, second, 3, 2), StyledConv(second, last, 3, 2)]
        )
        self.blocks = nn.ModuleList(StyledConv(last, last, 3) for _ in range(2 * blocks))
        pairs = zip((last, *expand), expand, strict=False)
        self.expand = nn.ModuleList(StyledConv(i, o, 3, upsample=True) for i, o in pairs)
        self.end = StyledConv(expand[-1], 3, 9)

    def forward(self, x: torch.Tensor, shares: torch.Tensor) -> torch.Tensor:
        """The picture repainted."""
        for layer in self.contract:
            x = F.relu(layer(x, shares))
        for first, second in zip(self.blocks[::2], self.blocks[1::2], strict=True):
            x = x + second(F.relu(first(x, shares)), shares)
        for layer in self.expand:
            x = F.relu(layer(x, shares))
        return torch.sigmoid(self.end(x, shares))


def torch_network(case: Mapping) -> Callable[[], None]:
    """The same in torch."""
    torch.set_num_threads(steps.THREADS)
    net, shares = Transform(case["widths"], case["blocks"], case["expand"]).eval(), torch.full((1, 26), 1 / 26)
    images, counted["evaluations"] = torch.tensor(picture(0, case["size"]).transpose(2, 0, 1)[None].copy()), 1

    def work():
        with torch.inference_mode():
            net(images, shares)

    return work


# --- the table ----------------------------------------------------------------------------------------------------


def makers(case: Mapping) -> dict[str, Callable]:
    """What makes our contestant of a row and torch's."""
    ours, theirs = (our_descent, torch_descent) if "optimiser" in case else (our_network, torch_network)
    return {"ours": functools.partial(ours, case), "torch": functools.partial(theirs, case)}


def evaluations(_: str) -> int:
    """The evaluations of the last call in this process."""
    return counted["evaluations"]


def main(_) -> None:
    lines, missed = ["| work | bar | ours / torch | ours, ms | torch, ms |", "|" + "---|" * 5], []
    for name in (name for name in CASES if ONLY.value in name):
        times, counts = report.measure(makers(CASES[name]), ROUNDS.value, finish=evaluations)
        each = {who: [value / counts[who] for value in values] for who, values in times.items()}
        line, met = steps.row(name, BAR, each)
        lines.append(line)
        print(line, flush=True)
        missed += [] if met else [name]
    header = f"""## Style transfer

`python -m benchmarks.style`: CPU, {steps.THREADS} threads each, float32, random pictures and weights. Milliseconds per
evaluation of the loss and its gradient within {EVALUATIONS} of a descent from the content, targets included, or per
picture of the network. torch's L-BFGS takes fixed steps without a line search, ours searches. Times are medians over
rounds in which both are timed in turn, ratios medians of the rounds' ratios, with their quartiles.
{report.machine(["jax", "flax", "optax", "torch"])}.
"""
    if not ONLY.value:
        report.write_section("style", "\n".join([header, *lines]))
    if missed:
        sys.exit(f"Over the bar: {'; '.join(missed)}")


if __name__ == "__main__":
    app.run(main)
