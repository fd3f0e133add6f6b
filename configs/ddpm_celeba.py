"""DDPM on CelebA at 64 pixels, one size more than on CIFAR-10, as the authors of DDIM trained it.

Paper: Song, Meng & Ermon, Denoising Diffusion Implicit Models, 2021 (arXiv:2010.02502), appendix D; as in their code, a
  face is 128 pixels around row 121 and column 89.
Command: python train.py --config=configs/ddpm_celeba.py --workdir=runs/ddpm_celeba
Result: not measured; its smoke steps are tested on mock data. The paper has an FID of 3.26 by all 1,000 ancestral
  steps, and of 17.3, 13.7, 9.2 and 6.5 by 10, 20, 50 and 100 steps of DDIM (by Inception v3: config.judge=FILE).
Time: 500,000 steps, out of reach of a CPU.
"""

from cvjax.config import experiment, variant

FACE = ({"op": "crop", "top": 57, "left": 25, "size": (128, 128)}, {"op": "resize", "size": (64, 64)})


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "ddim50" samples by DDIM in 50 steps."""
    config = experiment(
        "generative.diffusion.ddpm",
        recipe=dict(shape=(64, 64, 3), unet=dict(multipliers=(1, 2, 2, 2, 4))),
        data=dict(name="celeb_a", batch=128, eval_batch=128, transforms=(*FACE, {"op": "flip"}), eval_transforms=FACE),
        steps=500_000,
        log_every=200,
        eval_every=50_000,
        judge="pixels",
        judge_every=100_000,
        judge_samples=10_000,
        figure_every=50_000,
        checkpoint_every=5000,
        expect={"fid_over_noise": ("<=", 0.02)},
    )
    small = ({"op": "resize", "size": (8, 8)},)
    smoke = {
        "steps": 4,
        "recipe.shape": (8, 8, 3),
        "recipe.unet.width": 8,
        "recipe.unet.multipliers": (1, 2),
        "recipe.unet.blocks": 1,
        "recipe.unet.attention": (4,),
        "recipe.process.steps": 8,
        "recipe.bound_steps": 2,
        "recipe.repeats": 1,
        "data.batch": 16,
        "data.eval_batch": 16,
        "data.transforms": small,
        "data.eval_transforms": small,
        "log_every": 1,
        "judge_samples": 32,
    }
    ddim = {"recipe.sampling.sampler": "ddim", "recipe.sampling.steps": 50}
    return variant(config, name, smoke=smoke, ddim50=ddim)
