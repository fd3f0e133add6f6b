"""A small SRResNet: photographs four times as large by squared error; SRGAN begins with it.

Paper: Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, 2017
  (arXiv:1609.04802).
Command: python train.py --config=configs/srresnet_photos.py --workdir=runs/srresnet_photos
Result: 29.67 dB, 0.94 over bicubic and 0.60 over Lanczos interpolation, LPIPS 0.96 of bicubic's (seed 9401). Colours
  that the few photographs of training have not, such as purple, come out wrong.
Time: 1,500 steps of 0.45 CPU seconds.
"""

from cvjax.config import experiment, variant

STEPS = 1500


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    patch = (
        dict(op="random_crop", size=96),  # of high resolution, as in the paper
        dict(op="flip"),
        dict(op="flip", axis="vertical"),
        dict(op="random_quarter_turn"),
    )
    config = experiment(
        "translation.super_resolution.srresnet",
        recipe=dict(
            scale=4,
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
        figure_every=750,
        checkpoint_every=500,
        expect={"psnr_over_bicubic": (">=", 0.7), "psnr_over_lanczos": (">", 0.0)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/128", "data.batch": 8, "data.eval_split": "test[:8]"}
    smoke |= {"recipe.blocks": 1, "recipe.features": 4, "data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {"data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36))}
    return variant(config, name, smoke=smoke)
