"""Autoencoders on real handwritten digits, beside principal components.

Paper: Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006; the variants: `linear`,
Baldi & Hornik, Neural Networks and Principal Component Analysis, 1989; `two`, two latents; `convolutional`, Masci et
al., Stacked Convolutional Auto-Encoders, 2011.
Command: python train.py --config=configs/autoencoder_digits.py --workdir=runs/autoencoder_digits
Result: squared error on the 500 held-out digits 0.476 times that of 8 principal components fitted to them, and 2.2 dB
  more PSNR than JPEG at the same bytes (means of seeds 11, 22, 33, 44 and 55; standard deviations 0.011 and 0.1 dB).
  The variants: `linear`, 1.000 times the error of 10 components and the same subspace within 0.007 radians; `two`,
  0.672 times the error of 2, precision at 10 of 0.74; `convolutional`, 0.452 times that of 8, 2.3 dB over JPEG (means
  of seeds 221, 1101 and 1102).
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
            latent=8,
            hidden=(256, 128),
            activation="elu",
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-2,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(name="digits", batch=64, eval_batch=256),
        steps=STEPS,
        log_every=500,
        eval_every=2000,
        judge="digits",
        figure_every=2000,
        checkpoint_every=2000,
        expect={"error_over_pca": ("<=", 0.51), "jpeg_gain": (">=", 1.9)},
    )
    linear = {  # the optimum is the subspace of the training digits; it settles with all of them at every step
        "data.eval_split": "train",
        "recipe.latent": 10,
        "recipe.hidden": (),
        "data.batch": 1296,
        "recipe.optimiser.learning_rate": 1e-2,
        "recipe.optimiser.weight_decay": 0.0,
        "expect": {"error_over_pca": ("<=", 1.01), "subspace_angle": ("<=", 0.05)},
    }
    variants = {
        "smoke": {"steps": 4, "recipe.hidden": (16,), "data.batch": 16, "log_every": 1, "judge_samples": 32},
        "linear": linear,
        "two": {"recipe.latent": 2, "expect": {"error_over_pca": ("<=", 0.72), "precision_at_10": (">=", 0.68)}},
        "convolutional": {
            "recipe.hidden": (32, 64),
            "recipe.latent": 2,
            "recipe.convolutional": True,
            "expect": {"error_over_pca": ("<=", 0.465), "jpeg_gain": (">=", 2.24)},
        },
    }
    return variant(config, name, **variants)
