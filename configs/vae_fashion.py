"""A convolutional variational autoencoder of Fashion-MNIST, for a budget of ten minutes of a CPU core.

configs/classifier_fashion.py says where the images come from; its run is the judge of samples, which are the expected
images of latents from the prior.

Paper: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114).
Command: python train.py --config=configs/vae_fashion.py --workdir=runs/vae_fashion
Result: not measured in full; the bars are guesses.
Time: 10,000 steps, 21 epochs, of 0.05 CPU seconds.
"""

from cvjax.config import experiment, variant

STEPS = 10_000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.autoencoders.vae",
        recipe=dict(
            shape=(28, 28, 1),
            latent=32,
            hidden=(32, 64),
            convolutional=True,
            likelihood="gaussian",
            importance_samples=10,
            optimiser=dict(
                name="adam",
                learning_rate=1e-3,
                clip=100.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS),
            ),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=128, eval_batch=400),
        steps=STEPS,
        log_every=250,
        eval_every=5000,
        judge="runs/classifier_fashion/classifier",
        judge_every=STEPS,
        figure_every=5000,
        checkpoint_every=2500,
        expect={"frechet_distance_over_control": ("<=", 2.0), "bits_per_dim": ("<=", 8.0)},
    )
    smoke = {"steps": 4, "log_every": 1, "judge": "pixels", "judge_samples": 32, "recipe.hidden": (4, 8)}
    smoke |= {"recipe.latent": 8, "recipe.importance_samples": 2}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
