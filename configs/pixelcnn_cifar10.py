"""PixelCNN on CIFAR-10, with the sizes of the paper.

Paper: van den Oord, Kalchbrenner & Kavukcuoglu, Pixel Recurrent Neural Networks, 2016 (arXiv:1601.06759).
Command: python train.py --config=configs/pixelcnn_cifar10.py --workdir=runs/pixelcnn_cifar10
Result: not measured; its smoke steps are tested on mock data.
The paper has 3.14 bits/dim.
Time: 100 epochs of 3,125 steps, a third of a TFLOP each; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoregressive.pixelcnn",
        recipe=dict(shape=(32, 32, 3), ema=0.9995),
        data=dict(name="cifar10", batch=16, eval_batch=400),
        steps=312_500,
        log_every=100,
        eval_every=15_625,
        figure_every=15_625,
        checkpoint_every=3125,
        checkpoint_best="bits_per_dim",
        expect={"bits_per_dim": ("<=", 3.2), "sample_gap": ("<=", 0.1)},
    )
    small = ({"op": "resize", "size": (8, 8)},)
    smoke = {
        "steps": 4,
        "recipe.architecture.layers": 1,
        "recipe.architecture.width": 6,
        "recipe.architecture.head": 9,
        "recipe.shape": (8, 8, 3),
    }
    smoke |= {"data.transforms": small, "data.eval_transforms": small, "data.eval_batch": 16, "log_every": 1}
    return variant(config, name, smoke=smoke)
