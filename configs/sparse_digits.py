"""Sparse autoencoder on real handwritten digits: KL to a target activation, or L1 in the variant `l1`.

Paper: Ng, Sparse Autoencoder, CS294A lecture notes, 2011.
Command: python train.py --config=configs/sparse_digits.py --workdir=runs/sparse_digits
Result: mean activation 0.065, sparseness 0.30 and squared error 0.0074 on the held-out digits (means of seed 221 and of
  1101 to 1104); `l1`, sparseness 0.78 and 0.0063 (seed 11).
Time: 20 seconds on one CPU core.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.autoencoder",
        recipe=dict(
            shape=(8, 8, 1),
            latent=128,
            code_activation="sigmoid",
            sparsity="kl",
            sparsity_weight=0.1,  # the 3 of the notes gives a squared error of 0.019
            sparsity_target=0.05,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(name="digits", batch=256, eval_batch=256),
        steps=STEPS,
        log_every=500,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"mean_activation": ("<=", 0.066), "sparseness": (">=", 0.285), "squared_error": ("<=", 0.0077)},
    )
    l1 = {
        "recipe.code_activation": "relu",
        "recipe.tied": True,
        "recipe.sparsity": "l1",
        "recipe.sparsity_weight": 0.05,
        "expect": {"sparseness": (">=", 0.7), "squared_error": ("<=", 0.008)},
    }
    return variant(config, name, smoke={"steps": 4, "recipe.latent": 8, "data.batch": 16, "log_every": 1}, l1=l1)
