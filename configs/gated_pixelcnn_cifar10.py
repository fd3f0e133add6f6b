"""Gated PixelCNN on CIFAR-10, with the sizes of the paper on ImageNet.

Paper: van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv:1606.05328).
Command: python train.py --config=configs/gated_pixelcnn_cifar10.py --workdir=runs/gated_pixelcnn_cifar10
Result: not measured; its smoke steps are tested on mock data.
The paper has 3.03 bits/dim.
Time: 100 epochs of 3,125 steps: out of reach of a CPU.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoregressive.gated_pixelcnn",
        recipe=dict(shape=(32, 32, 3), ema=0.9995),
        data=dict(name="cifar10", batch=16, eval_batch=400),
        steps=312_500,
        log_every=100,
        eval_every=15_625,
        figure_every=15_625,
        checkpoint_every=3125,
        checkpoint_best="bits_per_dim",
        expect={"bits_per_dim": ("<=", 3.09), "sample_gap": ("<=", 0.1)},
    )
    small = ({"op": "resize", "size": (8, 8)},)
    smoke = {
        "steps": 4,
        "recipe.architecture.layers": 2,
        "recipe.architecture.width": 6,
        "recipe.architecture.head": 9,
        "recipe.shape": (8, 8, 3),
    }
    smoke |= {"data.transforms": small, "data.eval_transforms": small, "data.eval_batch": 16, "log_every": 1}
    return variant(config, name, smoke=smoke)
