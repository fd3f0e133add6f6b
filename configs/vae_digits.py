"""Variational autoencoder on real handwritten digits.

Paper: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114).
Command: python train.py --config=configs/vae_digits.py --workdir=runs/vae_digits
Result: 2.12 bits/dim on the held-out digits, 2.07 by the importance-weighted bound; all 8 latents active.
  25 % of its samples are clear digits (seed 11), against 26 to 31 % of those that autoencoder_digits decodes from a
  Gaussian fitted to its codes: the prior gives a likelihood here, but no clearer samples.
Time: 15 seconds on two CPU cores.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.vae",
        recipe=dict(
            shape=(8, 8, 1),
            latent=8,
            hidden=(500,),
            dropout=0.5,
            likelihood="categorical",
            levels=17,
            optimiser=dict(name="adam", learning_rate=1e-3),
        ),
        data=dict(name="digits", batch=64, eval_batch=128),
        steps=2000,
        log_every=100,
        eval_every=500,
        judge="digits",
        figure_every=500,
        checkpoint_every=500,
        checkpoint_best="bits_per_dim",
        expect={"bits_per_dim": ("<=", 2.20), "iwae_gain": (">", 0.0), "active_units": (">=", 5)},
    )
    smoke = {"steps": 4, "recipe.hidden": (16,), "data.batch": 16, "recipe.importance_samples": 2, "log_every": 1}
    return variant(config, name, smoke=smoke | {"judge_samples": 32})
