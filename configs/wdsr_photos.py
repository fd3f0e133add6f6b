"""A small WDSR-A: what the small EDSR of `edsr_photos` does, with fewer parameters.

The variant `b` has WDSR-B's blocks, of 1x1 convolutions with a linear low-rank one.

Paper: Yu et al., Wide Activation for Efficient and Accurate Image Super-Resolution, 2018 (arXiv:1808.08718).
Command: python train.py --config=configs/wdsr_photos.py --workdir=runs/wdsr_photos
Result: psnr_y 35.60 and ssim_y 0.946 with 59,874 parameters, where the small EDSR has 35.56 with 69,027, bicubic
  interpolation 33.96 and Lanczos' 34.51 (seed 9201 of both).
Time: 17 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant

STEPS = 2000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    patch = (
        dict(op="random_crop", size=96),
        dict(op="flip"),
        dict(op="flip", axis="vertical"),
        dict(op="random_quarter_turn"),
    )
    config = experiment(
        "translation.super_resolution.wdsr",
        recipe=dict(
            scale=2,
            blocks=4,
            features=14,
            optimiser=dict(
                name="adam",
                learning_rate=3e-3,
                warmup=50,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 50),
            ),
        ),
        data=dict(
            name="photos/whole",
            batch=16,
            eval_batch=8,
            transforms=patch,
            eval_transforms=(dict(op="canvas", size=512),),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=1000,
        checkpoint_every=500,
        expect={"psnr_over_bicubic": (">=", 1.0), "psnr_over_lanczos": (">", 0.0)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/128", "data.batch": 8, "data.eval_split": "test[:8]"}
    smoke |= {"recipe.blocks": 1, "recipe.features": 4, "data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {"data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36))}
    b = {"recipe.variant": "b", "recipe.features": 16, "recipe.blocks": 8}
    return variant(config, name, smoke=smoke, b=b)
