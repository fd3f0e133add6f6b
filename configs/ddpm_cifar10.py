"""DDPM on CIFAR-10, with the sizes and the training of the paper: 35.7 million parameters, 1,000 steps of noise.

Paper: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239).
Command: python train.py --config=configs/ddpm_cifar10.py --workdir=runs/ddpm_cifar10
Result: not measured; its smoke steps are tested on mock data. The paper has an FID of 3.17 and an inception score of
  9.46 by Inception v3 (config.judge=FILE), and at most 3.75 bits/dim.
Time: 800,000 steps, out of reach of a CPU; the paper has 10.6 hours on eight TPU v3 cores.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds, "classes" samples by class."""
    config = experiment(
        "generative.diffusion.ddpm",
        recipe=dict(shape=(32, 32, 3)),
        data=dict(name="cifar10", batch=128, eval_batch=256, transforms=(dict(op="flip"),)),
        steps=800_000,
        log_every=200,
        eval_every=50_000,
        judge="pixels",
        judge_every=100_000,
        judge_samples=10_000,
        figure_every=50_000,
        checkpoint_every=5000,
        expect={"fid_over_noise": ("<=", 0.02), "bits_per_dim": ("<=", 3.9)},
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
    return variant(config, name, smoke=smoke, classes={"recipe.classes": 10})
