"""CycleGAN between two folders of one's own pictures, such as photographs and drawings; no picture needs a partner.

`--config.data.folder=PHOTOGRAPHS --config.data.also.folder=DRAWINGS` names both. Sub-folders train/ and test/ are taken
for the splits; without them, a tenth of the pictures is held out. Then

    python -m cvjax.apply --run=runs/own_styles --input=PICTURES --output=translated
    python -m cvjax.apply --run=runs/own_styles --input=PICTURES --label=b_to_a --output=translated_back

translate pictures and videos, from the first folder's kind to the second's and back. They keep their size up to a
longest side of 1024 pixels, and larger ones are made smaller: `--config.recipe.longest=2048`, when the run begins,
allows more at four times the memory.

Where all files of one folder are grey, `dict(op="grayscale", channels=3)` belongs into that side's transforms.

The rate is constant for half of the steps and then falls linearly to 0; set the number of steps by `STEPS` in this
file, for `--config.steps` leaves the schedule as it is.

Paper: Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017
  (arXiv:1703.10593).
Command: python train.py --config=configs/own_styles.py --workdir=runs/own_styles
Result: not measured; it depends on the folders. Look at the pictures: no figure tells whether they look right.
Time: 40,000 steps of 128 pixels with six blocks; not measured.
"""

from cvjax.config import experiment, variant

STEPS = 40_000


def _transforms(size: int, train: bool) -> tuple:
    """Fits pictures into a square; for training, also crops and mirrors them at random."""
    if train:
        larger = size * 9 // 8
        square = (dict(op="resize", size=larger, shorter=True), dict(op="random_crop", size=(size, size)))
        return (*square, dict(op="flip"))  # remove it if left and right matter, as for letters
    return (dict(op="resize", size=size, shorter=True), dict(op="center_crop", size=size))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    falling = dict(name="linear_schedule", end_value=0.0, transition_begin=STEPS // 2, transition_steps=STEPS // 2)
    optimiser = dict(name="adam", learning_rate=2e-4, b1=0.5, schedule=falling)
    both = dict(transforms=_transforms(128, train=True), eval_transforms=_transforms(128, train=False))
    config = experiment(
        "translation.cyclegan",
        recipe=dict(blocks=6, generator_optimiser=optimiser, discriminator_optimiser=optimiser),
        data=dict(batch=1, eval_batch=8, **both, also=both),
        steps=STEPS,
        log_every=50,
        eval_every=5000,
        figure_every=1000,
        checkpoint_every=1000,
        expect={"cycle_psnr": (">=", 15)},
    )
    # Drawn scenes replace one's own pictures.
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_solid", "data.also.name": "shapes/smoke_striped"}
    smoke |= {"recipe.width": 4, "recipe.blocks": 1, "recipe.discriminator_width": 4, "recipe.pool": 2}
    for also in ("", "also."):
        smoke |= {f"data.{also}transforms": _transforms(32, train=True)}
        smoke |= {f"data.{also}eval_transforms": _transforms(32, train=False)}
    return variant(config, name, smoke=smoke)
