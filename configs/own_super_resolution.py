"""EDSR of a folder of one's own pictures, which are made smaller and learnt to be made twice as large again.

`--config.data.folder=FOLDER` names their folder; each side has 96 pixels or more, in held-out pictures 20.
`--config.recipe.degradation.jpeg="(60.0,95.0)"`, `.noise` and `.blur` make the small pictures as bad as those that are
to be enlarged; `python -m cvjax.apply --run=runs/own_super_resolution --input=PICTURES --output=OUT` enlarges them. The
variant `x4` is for four times as large.

Paper: Lim, Son, Kim, Nah & Lee, Enhanced Deep Residual Networks for Single Image Super-Resolution, 2017
  (arXiv:1707.02921).
Command: python train.py --config=configs/own_super_resolution.py --workdir=runs/own_super_resolution
Result: not measured; it depends on the folder.
Time: 20,000 steps of the baseline's width with half its blocks; not measured.
"""

from cvjax.config import experiment, variant

STEPS = 20_000
PATCH = 48  # pixels of the small patches


def _transforms(scale: int) -> tuple:
    """Random patches, mirrored; remove the second where above and below matter."""
    return (dict(op="random_crop", size=PATCH * scale), dict(op="flip"), dict(op="flip", axis="vertical"))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.super_resolution.edsr",
        recipe=dict(
            scale=2,
            blocks=8,
            optimiser=dict(
                name="adam",
                learning_rate=5e-4,
                warmup=100,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            batch=16,
            eval_batch=8,
            transforms=_transforms(2),
            eval_transforms=(dict(op="canvas", size=768, least=20),),  # of larger pictures, the middle
        ),
        steps=STEPS,
        log_every=100,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=1000,
        checkpoint_best="psnr_over_bicubic",
        expect={"psnr_over_bicubic": (">=", 0.0)},
    )
    # Photographs replace one's own pictures.
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/128", "data.batch": 8, "data.eval_split": "test[:8]"}
    smoke |= {"recipe.blocks": 1, "recipe.features": 4, "data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {"data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36))}
    return variant(config, name, smoke=smoke, x4={"recipe.scale": 4, "data.transforms": _transforms(4)})
