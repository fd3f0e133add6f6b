"""EDSR on DIV2K: the paper's baseline, twice as large; only DIV2K's pictures of high resolution are read.

They are made smaller here, by the kernel that made DIV2K's own small ones; TFDS has both, as `div2k/bicubic_x2`. The
variants `x3` and `x4` are for other factors, and `large` is the paper's final network, of 40.7 M parameters; EDSR+ is
`--config.recipe.self_ensemble=True`.

Paper: Lim, Son, Kim, Nah & Lee, Enhanced Deep Residual Networks for Single Image Super-Resolution, 2017
  (arXiv:1707.02921), section 4.1.
Command: python train.py --config=configs/edsr_div2k.py --workdir=runs/edsr_div2k
Result: not measured; its smoke steps are tested on photographs. The table of the authors' later PyTorch code has
  34.61 dB on DIV2K's validation pictures with the baseline and 35.03 with the large network: in RGB and without a
  border of 4 pixels, where this config measures the luma.
Time: 300,000 steps; not measured.
"""

from cvjax.config import experiment, variant

PATCH = 48  # pixels of the small patches


def _transforms(scale: int) -> tuple:
    """Random patches, mirrored and turned."""
    crop = dict(op="random_crop", size=PATCH * scale)
    return (crop, dict(op="flip"), dict(op="flip", axis="vertical"), dict(op="random_quarter_turn"))


def _variant(scale: int) -> dict:
    return {"recipe.scale": scale, "data.transforms": _transforms(scale)}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    halved = {str(200_000): 0.5}
    config = experiment(
        "translation.super_resolution.edsr",
        recipe=dict(
            scale=2,
            optimiser=dict(
                name="adam",
                learning_rate=1e-4,
                schedule=dict(name="piecewise_constant_schedule", boundaries_and_scales=halved),
            ),
        ),
        data=dict(
            name="div2k/bicubic_x2",
            eval_split="validation",
            batch=16,
            eval_batch=8,
            workers=8,
            transforms=_transforms(2),
            eval_transforms=(dict(op="canvas", size=2040),),
        ),
        steps=300_000,
        log_every=500,
        eval_every=10_000,
        figure_every=10_000,
        checkpoint_every=10_000,
        checkpoint_best="psnr_over_bicubic",
        expect={"psnr_over_bicubic": (">=", 3.0)},
    )
    # Photographs replace DIV2K, for which TFDS needs a download.
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/128", "data.batch": 8, "data.eval_split": "test[:8]"}
    smoke |= {"recipe.blocks": 1, "recipe.features": 4, "data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {"data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36)), "data.workers": 0}
    large = {"recipe.blocks": 32, "recipe.features": 256, "recipe.residual_scale": 0.1}
    return variant(config, name, smoke=smoke, x3=_variant(3), x4=_variant(4), large=large)
