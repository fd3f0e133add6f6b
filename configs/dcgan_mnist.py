"""DCGAN on MNIST, padded to 32 x 32.

Paper: Radford, Metz & Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, 2016 (arXiv:1511.06434).
Command: python train.py --config=configs/dcgan_mnist.py --workdir=runs/dcgan_mnist
Result: not measured; its smoke steps are tested on mock data.
Time: 25 epochs of 469 steps; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    pad = ({"op": "pad", "padding": 2},)
    config = experiment(
        "generative.gans.gan",
        recipe=dict(shape=(32, 32, 1), latent=100, width=64),
        data=dict(name="mnist", batch=128, eval_batch=512, transforms=pad, eval_transforms=pad),
        steps=11_725,
        log_every=100,
        eval_every=2345,
        judge="pixels",
        judge_samples=10_000,
        figure_every=469,
        checkpoint_every=2345,
        checkpoint_best="fid_over_noise",
        expect={"fid_over_noise": ("<=", 0.05)},
    )
    smoke = {
        "steps": 4,
        "recipe.width": 8,
        "data.batch": 16,
        "data.eval_batch": 16,
        "log_every": 1,
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
