"""CycleGAN between emoji of two styles, Google's and Twitter's, without their pairs, which only the figures see.

`pix2pix_emoji` says where the pictures come from, how they are unpacked to `emoji`, and which are held out. Both sides
have the same names, so that the same emoji are held out on either; in training, each side has an order of its own.

The bars are above the pictures as they are and above the best affine change of their colours, which is fitted to the
held-out truth itself, which training does not see. The rate is constant for half of the steps and then falls
linearly to 0; set the number of steps by `STEPS` in this file, for `--config.steps` leaves the schedule as it is.

Paper: Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017
  (arXiv:1703.10593).
Command: python train.py --config=configs/cyclegan_emoji.py --workdir=runs/cyclegan_emoji
Result: not measured.
Time: 8,000 steps; not measured.
"""

from cvjax.config import experiment, variant

STEPS = 8000
# As in pix2pix_emoji, of which it is a copy because configs import no others.
VARIANTS = r"-fe0f|-200d|-1f3f[b-f]|-264[02]|-27a1|-?(1f46[6-9a]|1f9d[1-3]|1f47[145])"


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    falling = dict(name="linear_schedule", end_value=0.0, transition_begin=STEPS // 2, transition_steps=STEPS // 2)
    optimiser = dict(name="adam", learning_rate=2e-4, b1=0.5, schedule=falling)
    shrink = (dict(op="resize", size=32, method="box"),)
    side = dict(together=VARIANTS, transforms=(*shrink, dict(op="flip")), eval_transforms=shrink)
    config = experiment(
        "translation.cyclegan",
        recipe=dict(
            width=32,
            blocks=3,
            discriminator_width=32,
            field=16,
            paired=True,
            generator_optimiser=optimiser,
            discriminator_optimiser=optimiser,
        ),
        data=dict(
            folder="emoji/google/64",
            batch=1,
            eval_batch=40,
            **side,
            also=dict(folder="emoji/twitter/64", **side),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={
            "psnr_over_input": (">", 0.0),
            "psnr_over_recoloured": (">", 0.0),
            "ssim_over_input": (">", 0.0),
            "ssim_over_recoloured": (">", 0.0),
        },
    )
    # Drawn scenes replace the emoji, which are in no package of Python.
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_solid", "data.also.name": "shapes/smoke_striped"}
    smoke |= {"data.folder": None, "data.also.folder": None, "data.eval_batch": 8}
    smoke |= {"recipe.width": 4, "recipe.blocks": 1, "recipe.discriminator_width": 4, "recipe.pool": 2}
    return variant(config, name, smoke=smoke)
