"""Latent diffusion of CelebA at 64 pixels, with the sizes and the training of the paper's LDM-4 of CelebA-HQ.

The U-Net attends at all three of its smaller heights, by 7 heads where the paper has one for each 32 channels. The
published model of CelebA-HQ has noise of betas from 0.0015 to 0.0195; here they go from 0.00085 to 0.012, those of its
later models.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752), table 12.
Command: python train.py --config=configs/latent_diffusion_celeba.py --workdir=runs/latent_diffusion_celeba
Result: not measured, for it was not trained; its smoke steps are tested on mock data. The bar is a guess. At 256
  pixels the paper has an FID of 5.11 by Inception v3 (config.judge=FILE).
Time: 410,000 steps, out of reach of a CPU.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    fit = (dict(op="center_crop", size=178), dict(op="resize", size=64))
    config = experiment(
        "generative.diffusion.latent",
        recipe=dict(
            unet=dict(width=224, multipliers=(1, 2, 3, 4), attention=(8, 4, 2), heads=7, dropout=0.0),
            process=dict(schedule="scaled_linear"),
            sampling=dict(steps=200, eta=0.0),
            ema=0.9999,
            optimiser=dict(name="adamw", learning_rate=9.6e-5, weight_decay=1e-2),
        ),
        borrow=dict(encoder="runs/vq_autoencoder_celeba/encoder", decoder="runs/vq_autoencoder_celeba/decoder"),
        data=dict(
            name="celeb_a",
            batch=48,
            eval_batch=64,
            transforms=(*fit, dict(op="flip")),
            eval_transforms=fit,
        ),
        judge="pixels",
        judge_every=50_000,
        judge_samples=5000,
        steps=410_000,
        log_every=200,
        eval_every=50_000,
        figure_every=50_000,
        checkpoint_every=5000,
        expect={"fid_over_noise": ("<=", 0.05)},
    )
    small = (dict(op="center_crop", size=178), dict(op="resize", size=16))
    smoke = {
        "steps": 4,
        "recipe.unet.width": 8,
        "recipe.unet.multipliers": (1, 2),
        "recipe.unet.blocks": 1,
        "recipe.unet.attention": (4,),
        "recipe.unet.heads": 1,
        "recipe.process.steps": 8,
        "recipe.sampling.steps": 4,
        "data.batch": 8,
        "data.eval_batch": 8,
        "data.transforms": small,
        "data.eval_transforms": small,
        "log_every": 1,
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
