"""A small EDSR: photographs twice as large, learnt from eight photographs and tested on four others, whole.

The variants `x3` and `x4` are for other factors. Pictures are made smaller by the antialiased bicubic kernel; figures
are of the luma in 8 bits, without the factor's number of pixels at each border.

Paper: Lim, Son, Kim, Nah & Lee, Enhanced Deep Residual Networks for Single Image Super-Resolution, 2017
  (arXiv:1707.02921).
Command: python train.py --config=configs/edsr_photos.py --workdir=runs/edsr_photos
Result: psnr_y 35.56 and ssim_y 0.945, where bicubic interpolation has 33.96 and Lanczos' 34.51; LPIPS is 0.60 times
  bicubic's (seed 9201).
Time: 8 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 2000
PATCH = 48  # pixels of the small patches


def _data(scale: int) -> dict:
    """Random patches of whole photographs, mirrored and turned; whole photographs on canvases for evaluation."""
    crop = dict(op="random_crop", size=PATCH * scale)
    turns = (dict(op="flip"), dict(op="flip", axis="vertical"), dict(op="random_quarter_turn"))
    return {"transforms": (crop, *turns), "eval_transforms": (dict(op="canvas", size=512),)}


def _variant(scale: int) -> dict:
    return {"recipe.scale": scale} | {f"data.{key}": value for key, value in _data(scale).items()}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.super_resolution.edsr",
        recipe=dict(
            scale=2,
            blocks=4,
            features=24,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                warmup=50,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 50),
            ),
        ),
        data=dict(name="photos/whole", batch=16, eval_batch=8, **_data(2)),
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
    return variant(config, name, smoke=smoke, x3=_variant(3), x4=_variant(4))
