"""pix2pix of 3,786 emoji in Google's style into Twitter's, of the same names, at 32 pixels.

The pictures come from two packages of npm, Noto Emoji (Apache-2.0) and Twemoji (CC BY 4.0), and need Node.js once:

    npm pack emoji-datasource-google@16.0.0 emoji-datasource-twitter@16.0.0
    mkdir -p emoji
    for s in google twitter; do
      tar -xzf emoji-datasource-$s-16.0.0.tgz -C emoji --strip-components=2 package/img/$s/64
    done

Both folders then have the same names, and a name without a partner would be an error that lists it. Transparent pixels
become white. A tenth of the emoji is held out by name: 398 pictures. Those whose names differ only in the tone of the
skin, in who it is (boy, girl, child, man, woman, person, older or blond, families of them), or in the direction that
they face, are one emoji. Flags that are drawn alike are not: two of the 398, Heard Island's and the United States',
have a twin among those that are learnt.

The bars are above the pictures as they are and above the best affine change of their colours, which is fitted to the
held-out pictures themselves. The variant `large` has all 64 pixels, `l1` no discriminator.

Paper: Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017
  (arXiv:1611.07004).
Command: python train.py --config=configs/pix2pix_emoji.py --workdir=runs/pix2pix_emoji
Result: not measured.
Time: 4,000 steps; not measured.
"""

from cvjax.config import experiment, variant

# What variants of an emoji differ in: how it is joined, skin, female or male, facing right, and who it is.
VARIANTS = r"-fe0f|-200d|-1f3f[b-f]|-264[02]|-27a1|-?(1f46[6-9a]|1f9d[1-3]|1f47[145])"


def _transforms(size: int, train: bool) -> tuple:
    """Shrinks by the means of squares, and mirrors for training."""
    shrink = () if size == 64 else (dict(op="resize", size=size, method="box"),)
    return (*shrink, dict(op="flip")) if train else shrink


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.pix2pix",
        recipe=dict(
            depth=5,
            width=32,
            dropout=0.0,
            resize=True,
            field=16,
            discriminator_width=32,
            test_mode="running",
            recoloured=True,
        ),
        data=dict(
            folder="emoji/google/64",
            images={"target": "emoji/twitter/64"},
            together=VARIANTS,
            batch=8,
            eval_batch=40,
            transforms=_transforms(32, train=True),
            eval_transforms=_transforms(32, train=False),
        ),
        steps=4000,
        log_every=50,
        eval_every=1000,
        figure_every=1000,
        checkpoint_every=1000,
        expect={
            "psnr_over_input": (">", 0.0),
            "psnr_over_recoloured": (">", 0.0),
            "ssim_over_input": (">", 0.0),
            "ssim_over_recoloured": (">", 0.0),
        },
    )
    # Drawn scenes replace the emoji, which are in no package of Python.
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_paired", "data.folder": None}
    smoke |= {"data.images.target": "target", "data.eval_batch": 8}
    smoke |= {"recipe.width": 4, "recipe.discriminator_width": 4}
    large = {"recipe.depth": 6, "recipe.field": 34}
    large |= {"data.transforms": _transforms(64, train=True), "data.eval_transforms": _transforms(64, train=False)}
    return variant(config, name, smoke=smoke, l1={"recipe.adversarial": 0.0}, large=large)
