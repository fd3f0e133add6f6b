"""Contractive autoencoder on real handwritten digits; the variant `plain` has no penalty.

Paper: Rifai et al., Contractive Auto-Encoders: Explicit Invariance During Feature Extraction, 2011.
Command: python train.py --config=configs/contractive_digits.py --workdir=runs/contractive_digits
Result: squared norm of the Jacobian 15.2 on the held-out digits at a squared error of 0.0069 (means of seed 221 and of
  1101 to 1104); `plain`, 46.6 at 0.0027 (seed 11).
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
            tied=True,
            loss="cross_entropy",
            contractive=0.1,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(name="digits", batch=64, eval_batch=256),
        steps=STEPS,
        log_every=500,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"jacobian_norm": ("<=", 15.5), "squared_error": ("<=", 0.0072)},
    )
    variants = {
        "smoke": {"steps": 4, "recipe.latent": 8, "data.batch": 16, "log_every": 1},
        "plain": {"recipe.contractive": 0.0, "expect": {"squared_error": ("<=", 0.004)}},
    }
    return variant(config, name, **variants)
