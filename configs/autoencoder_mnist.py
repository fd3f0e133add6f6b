"""Deep autoencoder on MNIST, 784-1000-500-250-30; the variant `denoising` removes salt and pepper.

Paper: Hinton & Salakhutdinov, Reducing the Dimensionality of Data with Neural Networks, 2006.
Command: python train.py --config=configs/autoencoder_mnist.py --workdir=runs/autoencoder_mnist
Result: not measured; its smoke steps are tested on mock data.
Time: 60 epochs of 625 steps, each with about 40 times the arithmetic of a step of autoencoder_digits.
"""

from cvjax.config import experiment, variant

STEPS = 37_500


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.autoencoder",
        recipe=dict(
            shape=(28, 28, 1),
            latent=30,
            hidden=(1000, 500, 250),
            loss="cross_entropy",
            optimiser=dict(
                name="adam",
                learning_rate=1e-3,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(name="mnist", batch=96, eval_batch=512),
        steps=STEPS,
        log_every=200,
        eval_every=3000,
        figure_every=3000,
        checkpoint_every=3000,
        # The paper's network: 3.0 a digit, summed over pixels; its 30 principal components, 13.87.
        expect={"squared_error": ("<=", 0.0045)},
    )
    smoke = {"steps": 4, "recipe.hidden": (16,), "data.batch": 16, "data.eval_batch": 16, "log_every": 1}
    denoising = {
        "recipe.corruption": "salt_and_pepper",
        "recipe.corruption_level": 0.25,
        "expect": {"psnr_over_nonlocal_means": (">", 0.0)},
    }
    return variant(config, name, smoke=smoke, denoising=denoising)
