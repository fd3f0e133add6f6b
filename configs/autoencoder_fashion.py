"""A convolutional autoencoder of Fashion-MNIST, the first stage of configs/latent_diffusion_fashion.py.

Its codes are 7 x 7 places of four channels, a quarter of the numbers of an image. configs/classifier_fashion.py says
where the images come from.

Paper: Masci et al., Stacked Convolutional Auto-Encoders for Hierarchical Feature Extraction, 2011.
Command: python train.py --config=configs/autoencoder_fashion.py --workdir=runs/autoencoder_fashion
Result: not measured in full; the bars are guesses. After 500 steps the squared error is 0.0077 (seed
  9401).
Time: 5,000 steps, 11 epochs, of 0.05 CPU seconds.
"""

from cvjax.config import experiment, variant

STEPS = 5000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.autoencoder",
        recipe=dict(
            shape=(28, 28, 1),
            latent=4,
            hidden=(32, 64),
            activation="elu",
            convolutional=True,
            optimiser=dict(
                name="adam",
                learning_rate=1e-3,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=128, eval_batch=400),
        steps=STEPS,
        log_every=250,
        figure_every=STEPS,
        checkpoint_every=1000,
        expect={"squared_error": ("<=", 0.006)},
    )
    smoke = {"steps": 4, "log_every": 1, "recipe.hidden": (4, 8), "recipe.latent": 2}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
