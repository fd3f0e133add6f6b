"""Variational autoencoder on MNIST, with new binary pixels at every step.

Paper: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114), with the sizes of Burda et al., 2016.
Command: python train.py --config=configs/vae_mnist.py --workdir=runs/vae_mnist
Result: not measured; its smoke steps are tested on mock data.
Time: about 60 epochs of 625 steps; a step takes about 5 times as long as one of vae_digits.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.vae",
        recipe=dict(
            shape=(28, 28, 1),
            latent=50,
            hidden=(200, 200),
            likelihood="bernoulli",
            binarise=True,
            optimiser=dict(name="adam", learning_rate=1e-3),
        ),
        data=dict(name="mnist", batch=96, eval_batch=512),
        steps=37_500,
        log_every=200,
        eval_every=3000,
        figure_every=3000,
        checkpoint_every=3000,
        checkpoint_best="bits_per_dim",
        # 90 nats over 784 binary pixels.
        expect={"bits_per_dim": ("<=", 0.17), "iwae_gain": (">", 0.0), "active_units": (">=", 15)},
    )
    smoke = {"steps": 4, "recipe.hidden": (16,), "data.batch": 16, "recipe.importance_samples": 2, "log_every": 1}
    return variant(config, name, smoke=smoke | {"data.eval_batch": 16})
