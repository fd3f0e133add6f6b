"""CycleGAN between horses and zebras, as the paper trains it: 256 pixels, 9 blocks, 200 epochs of single images.

Other datasets of the paper are `--config.data.name=cycle_gan/NAME --config.data.also.name=cycle_gan/NAME`: monet2photo,
apple2orange, summer2winter_yosemite, maps and more, each with the splits trainA, trainB, testA and testB. The rate is
constant for half of the steps and then falls linearly to 0; set the number of steps by `EPOCH` in this file,
for `--config.steps` leaves the schedule as it is.

Paper: Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017
  (arXiv:1703.10593).
Command: python train.py --config=configs/cyclegan_horse2zebra.py --workdir=runs/cyclegan_horse2zebra
Result: not measured; its smoke steps are tested on drawn scenes. The paper shows pictures and has no figure for them.
Time: 200 epochs of 1,334 steps; not measured.
"""

from cvjax.config import experiment, variant

EPOCH = 1334  # zebras; there are 1,067 horses
STEPS = 200 * EPOCH


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    falling = dict(name="linear_schedule", end_value=0.0, transition_begin=STEPS // 2, transition_steps=STEPS // 2)
    optimiser = dict(name="adam", learning_rate=2e-4, b1=0.5, schedule=falling)
    train = (dict(op="resize", size=(286, 286)), dict(op="random_crop", size=(256, 256)), dict(op="flip"))
    test = (dict(op="resize", size=(256, 256)),)
    config = experiment(
        "translation.cyclegan",
        recipe=dict(generator_optimiser=optimiser, discriminator_optimiser=optimiser),
        data=dict(
            name="cycle_gan/horse2zebra",
            train_split="trainA",
            eval_split="testA",
            batch=1,
            eval_batch=8,
            workers=2,
            transforms=train,
            eval_transforms=test,
            also=dict(
                name="cycle_gan/horse2zebra",
                train_split="trainB",
                eval_split="testB",
                transforms=train,
                eval_transforms=test,
            ),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=10 * EPOCH,
        figure_every=EPOCH,
        checkpoint_every=EPOCH,
        expect={"cycle_psnr": (">=", 20)},
    )
    # Drawn scenes replace the photographs, for which TFDS needs TensorFlow.
    smoke = {"steps": 4, "log_every": 1, "data.eval_batch": 8, "data.workers": 0}
    smoke |= {"recipe.width": 4, "recipe.blocks": 1, "recipe.discriminator_width": 4, "recipe.pool": 2}
    for also, style in (("", "solid"), ("also.", "striped")):
        smoke |= {f"data.{also}name": f"shapes/smoke_{style}", f"data.{also}train_split": "train"}
        smoke |= {f"data.{also}eval_split": "test", f"data.{also}transforms": (), f"data.{also}eval_transforms": ()}
    return variant(config, name, smoke=smoke)
