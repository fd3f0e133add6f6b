"""Latent diffusion of Fashion-MNIST: a class-conditional diffusion of the codes of configs/autoencoder_fashion.py.

For a budget of ten minutes of a CPU core. configs/classifier_fashion.py says where the images come from; its run is the
judge.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752).
Command: python train.py --config=configs/latent_diffusion_fashion.py --workdir=runs/latent_diffusion_fashion
Result: not measured in full; the bars are guesses. After 400 steps, on an autoencoder of 500, the
  distance is 4.0 times that of a Gaussian for each class, class accuracy 0.366 (seed 9401).
Time: 10,000 steps, 21 epochs, of less than 0.1 CPU seconds.
"""

from cvjax.config import experiment, variant

STEPS = 10_000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "guided" samples with guidance."""
    config = experiment(
        "generative.diffusion.latent",
        recipe=dict(
            classes=10,
            width=512,
            blocks=4,
            optimiser=dict(
                name="adamw", learning_rate=1e-3, schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS)
            ),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=128, eval_batch=400),
        borrow=dict(encoder="runs/autoencoder_fashion/encoder", decoder="runs/autoencoder_fashion/decoder"),
        steps=STEPS,
        log_every=250,
        judge="runs/classifier_fashion/classifier",
        judge_every=STEPS,
        figure_every=5000,
        checkpoint_every=2500,
        expect={
            "frechet_distance_over_control": ("<", 1.0),
            "class_accuracy": (">=", 0.6),
            "error_over_gaussian": ("<", 1.0),
        },
    )
    smoke = {"steps": 4, "log_every": 1, "judge": "pixels", "judge_samples": 32, "recipe.width": 16}
    smoke |= {"recipe.sampling.steps": 4}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke, guided={"recipe.sampling.guidance": 1.0})
