"""DDPM of one's own colour pictures, 64 x 64, with half the width of the paper's U-Net; figures by DDIM in 50 steps.

`--config.data.folder=FOLDER` names their folder. For samples by the paper's 1,000 steps add
`--config.recipe.sampling.sampler=ddpm --config.recipe.sampling.steps=1000`.

Paper: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239).
Command: python train.py --config=configs/own_diffusion.py --workdir=runs/own_diffusion
Result: not measured; it depends on the folder.
Time: 50,000 steps for a GPU; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=64, shorter=True), dict(op="center_crop", size=64))
    config = experiment(
        "generative.diffusion.ddpm",
        recipe=dict(
            shape=(64, 64, 3),
            unet=dict(width=64),
            sampling=dict(sampler="ddim", steps=50),
        ),
        data=dict(batch=64, eval_batch=64, transforms=(*square, dict(op="flip")), eval_transforms=square),
        steps=50_000,
        log_every=100,
        eval_every=5000,
        judge="pixels",
        judge_samples=1000,
        figure_every=5000,
        checkpoint_every=1000,
        expect={"fid_over_noise": ("<", 1.0)},  # noise with the mean and the variance of each pixel
    )
    # Crops of photographs replace one's own pictures.
    small = (dict(op="resize", size=8),)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.shape": (8, 8, 3), "recipe.unet.width": 8, "recipe.unet.multipliers": (1, 2)}
    smoke |= {"recipe.unet.blocks": 1, "recipe.unet.attention": (4,), "recipe.process.steps": 8}
    smoke |= {"recipe.sampling.steps": 4, "recipe.bound_steps": 2, "recipe.repeats": 1, "judge_samples": 32}
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
