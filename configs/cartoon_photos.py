"""pix2pix learns OpenCV's cartoon of a photograph, from crops of the photographs that come with scikit-image.

The targets are `cvjax.translation.cartoon.ink` of the whole photographs, computed once and cropped with them. Held out
are squares of 256 pixels from photographs that training has not seen. `recipe.dropout` is 0 and the statistics of
training hold, because a cartoon is no lottery, and so that a film does not flicker:

    python -m cvjax.apply --run=runs/cartoon_photos --input=film.mp4 --output=cartoon.mp4
    python -m cvjax.programs.stability --input=film.mp4 --output=cartoon.mp4

`--config.data.derive.target.function=cvjax.translation.cartoon:pencil` learns a sketch, `:watercolour` a watercolour.

Paper: Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017
  (arXiv:1611.07004); the cartoon is after Winnemöller, Olsen & Gooch, Real-Time Video Abstraction, 2006.
Command: python train.py --config=configs/cartoon_photos.py --workdir=runs/cartoon_photos
Result: 24.95 dB and an SSIM of 0.813 to the cartoons, 3.65 dB and 0.170 above the photographs' own (seed 9301). Lines,
  colours and smoothness are learnt; of the steps of lightness on smooth surfaces, hardly any.
Time: 8 minutes beside other work on two CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 1000


def _crops(size: int, train: bool) -> tuple:
    """Crops at random and mirrors for training, and takes the middle for evaluation."""
    return (dict(op="random_crop", size=size), dict(op="flip")) if train else (dict(op="center_crop", size=size),)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    falling = dict(name="cosine_decay_schedule", decay_steps=STEPS)
    config = experiment(
        "translation.pix2pix",
        recipe=dict(
            depth=5,
            width=24,
            dropout=0.0,
            resize=True,
            field=34,
            discriminator_width=24,
            test_mode="running",
            generator_optimiser=dict(name="adam", learning_rate=1e-3, b1=0.5, schedule=falling),
            discriminator_optimiser=dict(name="adam", learning_rate=2e-4, b1=0.5, schedule=falling),
        ),
        data=dict(
            name="photos/whole",
            derive=dict(target=dict(function="cvjax.translation.cartoon:ink", kind="image")),
            transforms=_crops(96, train=True),
            eval_transforms=_crops(256, train=False),
            batch=8,
            eval_batch=8,
        ),
        steps=STEPS,
        log_every=20,
        eval_every=250,
        figure_every=500,
        checkpoint_every=250,
        expect={"psnr_over_input": (">=", 2.5), "ssim_over_input": (">=", 0.13)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.transforms": _crops(32, train=True), "data.eval_split": "test[:2]"}
    smoke |= {"data.eval_transforms": _crops(32, train=False), "recipe.depth": 3, "recipe.width": 4}
    return variant(config, name, smoke=smoke | {"recipe.discriminator_width": 4, "recipe.field": 16})
