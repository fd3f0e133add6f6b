"""DCGAN for 16 x 16 x 3 as one writes it in torch, and our parameters carried across."""

import numpy as np

SHAPE, WIDTH, LATENT, BATCH = (16, 16, 3), 4, 7, 6
TRANSPOSED = (2, 3, 0, 1)  # our kernel [kh, kw, in, features] to torch's [in, features, kh, kw]
CONVOLVED = (3, 2, 0, 1)  # and to that of a convolution, [features, in, kh, kw]


def networks(torch, kernel=4, normalise=True):
    """(generator, discriminator); the latter with batch normalisation or without."""
    nn = torch.nn
    pad, extra = (kernel - 1) // 2, kernel % 2

    class Generator(nn.Module):
        def __init__(self):
            super().__init__()
            self.project = nn.Linear(LATENT, 4 * 4 * 2 * WIDTH, bias=False)
            self.net = nn.Sequential(
                nn.BatchNorm2d(2 * WIDTH),
                nn.ReLU(),
                nn.ConvTranspose2d(2 * WIDTH, WIDTH, kernel, 2, pad, extra, bias=False),
                nn.BatchNorm2d(WIDTH),
                nn.ReLU(),
                nn.ConvTranspose2d(WIDTH, 3, kernel, 2, pad, extra),
                nn.Tanh(),
            )

        def forward(self, z):
            x = self.project(z).reshape(-1, 4, 4, 2 * WIDTH).permute(0, 3, 1, 2)
            return self.net(x)

    class Discriminator(nn.Module):
        def __init__(self):
            super().__init__()
            self.net = nn.Sequential(
                nn.Conv2d(3, WIDTH, kernel, 2, pad),
                nn.LeakyReLU(0.2),
                nn.Conv2d(WIDTH, 2 * WIDTH, kernel, 2, pad, bias=not normalise),
                nn.BatchNorm2d(2 * WIDTH) if normalise else nn.Identity(),
                nn.LeakyReLU(0.2),
            )
            self.logit = nn.Linear(4 * 4 * 2 * WIDTH, 1)

        def forward(self, x):
            return self.logit(self.net(x).permute(0, 2, 3, 1).flatten(1))[:, 0]

    return Generator(), Discriminator()


def put(torch, target, value, order=None):
    """Copies an array of ours into a parameter or a buffer, its axes permuted."""
    value = np.asarray(value)
    with torch.no_grad():
        target.copy_(torch.tensor(value.transpose(order) if order else value))


def carry_across(torch, state, generator, discriminator):
    """Copies our parameters and statistics into torch's networks."""

    def put_norm(layer, params, stats):
        put(torch, layer.weight, params["scale"])
        put(torch, layer.bias, params["bias"])
        put(torch, layer.running_mean, stats["mean"])
        put(torch, layer.running_var, stats["var"])

    g, d = state.params["generator"], state.params["discriminator"]
    g_stats, d_stats = (state.stats.get(name, {}) for name in ("generator", "discriminator"))
    put(torch, generator.project.weight, g["Dense_0"]["kernel"], (1, 0))
    put_norm(generator.net[0], g["BatchNorm_0"], g_stats["BatchNorm_0"])
    put(torch, generator.net[2].weight, g["ConvTranspose_0"]["kernel"], TRANSPOSED)
    put_norm(generator.net[3], g["BatchNorm_1"], g_stats["BatchNorm_1"])
    put(torch, generator.net[5].weight, g["ConvTranspose_1"]["kernel"], TRANSPOSED)
    put(torch, generator.net[5].bias, g["ConvTranspose_1"]["bias"])
    for index, name in ((0, "Conv_0"), (2, "Conv_1")):
        put(torch, discriminator.net[index].weight, d[name]["kernel"], CONVOLVED)
        if "bias" in d[name]:
            put(torch, discriminator.net[index].bias, d[name]["bias"])
    if "BatchNorm_0" in d:
        put_norm(discriminator.net[3], d["BatchNorm_0"], d_stats["BatchNorm_0"])
    put(torch, discriminator.logit.weight, d["Dense_0"]["kernel"], (1, 0))
    put(torch, discriminator.logit.bias, d["Dense_0"]["bias"])


def without_tracking(torch, network, *inputs):
    """Applies a torch network in training mode, leaving its running statistics as they were."""
    copies = {name: value.clone() for name, value in network.named_buffers()}
    return torch.func.functional_call(network, copies, inputs)
