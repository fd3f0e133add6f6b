"""A convolutional variational autoencoder of one's own colour pictures, 64 x 64.

`--config.data.folder=FOLDER` names their folder.

Paper: Kingma & Welling, Auto-Encoding Variational Bayes, 2014 (arXiv:1312.6114).
Command: python train.py --config=configs/own_vae.py --workdir=runs/own_vae
Result: not measured; it depends on the folder.
Time: 10,000 steps; an hour on two CPU cores.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=64, shorter=True), dict(op="center_crop", size=64))
    config = experiment(
        "generative.autoencoders.vae",
        recipe=dict(
            shape=(64, 64, 3),
            latent=128,
            hidden=(32, 64, 128, 256),
            convolutional=True,
            likelihood="gaussian",
            importance_samples=10,
            optimiser=dict(name="adam", learning_rate=5e-4, clip=100.0),
        ),
        data=dict(batch=64, eval_batch=64, transforms=(*square, dict(op="flip")), eval_transforms=square),
        steps=10_000,
        log_every=100,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        checkpoint_best="bits_per_dim",
        expect={"bits_per_dim": ("<=", 8.0)},  # what pixels that are drawn evenly cost
    )
    # Crops of photographs replace one's own pictures.
    small = (dict(op="resize", size=16),)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.shape": (16, 16, 3), "recipe.hidden": (4, 8), "recipe.latent": 8, "recipe.importance_samples": 2}
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
