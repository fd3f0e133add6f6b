"""Latent diffusion of real handwritten digits: a diffusion model of the codes of a trained autoencoder.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752).
Command: python train.py --config=configs/latent_diffusion_digits.py --workdir=runs/latent_diffusion_digits
Result: FID 0.48 times that of a Gaussian per class, denoising error 0.84 times the best linear denoiser's (seed 2027).
Time: 2 minutes on two CPU cores, plus 20 seconds for autoencoder_digits.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "classes" samples by class, "guided" with guidance."""
    config = experiment(
        "generative.diffusion.latent",
        recipe=dict(
            optimiser=dict(
                name="adamw", learning_rate=1e-3, schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS)
            ),
        ),
        data=dict(name="digits", batch=128, eval_batch=256),
        borrow=dict(encoder="runs/autoencoder_digits/encoder", decoder="runs/autoencoder_digits/decoder"),
        judge="digits",
        steps=STEPS,
        log_every=500,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"fid_over_control": ("<=", 0.6), "error_over_gaussian": ("<=", 0.88)},
    )
    classes = {
        "recipe.classes": 10,
        "recipe.label_dropout": 0.2,
        "expect": {"fid_over_control": ("<=", 0.4), "class_accuracy": (">=", 0.96)},
    }
    variants = {
        "smoke": {
            "steps": 4,
            "recipe.width": 16,
            "recipe.sampling.steps": 4,
            "data.batch": 16,
            "log_every": 1,
            "judge_samples": 32,
        },
        "classes": classes,
        "guided": {**classes, "recipe.sampling.guidance": 1.0},
    }
    return variant(config, name, **variants)
