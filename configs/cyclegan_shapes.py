"""CycleGAN on drawn scenes: solid shapes on a light ground into striped ones on a dark ground, and back.

The training scenes of the two kinds are disjoint, those of the test splits are the same, so that every translation has
a truth that no training has seen. Stripes lie in fixed rows: grey shapes, or stripes of the wrong phase, fail the bar
of `detail_a_to_b`. From A to B, images as they are have 2.4 dB; their colours changed by the best affine map 16.3, with
a correlation of detail of .33; the training picture nearest to that 17.8, with .77; the one nearest to the truth 19.3,
with .84. The variant `no_cycle` has a weight of 0 for the way there and back, as a control.

The rate is constant for half of the steps and then falls linearly to 0; set the number of steps by `STEPS` in this
file, for `--config.steps` leaves the schedule as it is.

Paper: Zhu, Park, Isola & Efros, Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks, 2017
  (arXiv:1703.10593).
Command: python train.py --config=configs/cyclegan_shapes.py --workdir=runs/cyclegan_shapes
Result: of one seed, 28.5 dB from A to B, with a correlation of detail of .98; 28.7 dB and .85 from B to A; 29.8 dB
  there and back; `no_cycle`, 20.4 dB and .90 from A to B, .36 from B to A, 19.1 dB there and back (seed 9401).
Time: 2 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant

STEPS = 2000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    falling = dict(name="linear_schedule", end_value=0.0, transition_begin=STEPS // 2, transition_steps=STEPS // 2)
    optimiser = dict(name="adam", learning_rate=2e-4, b1=0.5, schedule=falling)
    config = experiment(
        "translation.cyclegan",
        recipe=dict(
            width=32,
            blocks=3,
            discriminator_width=32,
            field=34,
            paired=True,
            generator_optimiser=optimiser,
            discriminator_optimiser=optimiser,
        ),
        data=dict(name="shapes/solid", batch=1, eval_batch=40, also=dict(name="shapes/striped")),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        expect={"psnr_a_to_b": (">=", 27), "detail_a_to_b": (">=", 0.97), "cycle_psnr": (">=", 28)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_solid", "data.also.name": "shapes/smoke_striped"}
    smoke |= {"recipe.width": 4, "recipe.blocks": 1, "recipe.discriminator_width": 4, "recipe.pool": 2}
    smoke |= {"data.batch": 8, "data.eval_batch": 8}
    no_cycle = {"recipe.cycle": 0.0, "expect": {"cycle_psnr": ("<", 20)}}
    return variant(config, name, smoke=smoke, no_cycle=no_cycle)
