"""pix2pix of drawn scenes: solid shapes on a light ground into the same scenes, striped on a dark one.

A scene has one right answer. The variant `l1` trains without a discriminator, `published` tests as the paper does: with
dropout, and by each image's own statistics.

Paper: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004).
Command: python train.py --config=configs/pix2pix_shapes.py --workdir=runs/pix2pix_shapes
Result: PSNR 34.4 dB and SSIM 0.988 (seed 9201).
Time: 3 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.pix2pix",
        recipe=dict(
            depth=5,
            width=32,
            dropout=0.0,  # one right answer needs no noise
            field=16,
            discriminator_width=32,
            test_mode="running",
        ),
        data=dict(name="shapes/paired", images={"target": "target"}, batch=8, eval_batch=40),
        steps=800,
        log_every=50,
        figure_every=400,
        checkpoint_every=400,
        expect={"psnr": (">=", 30)},
    )
    published = {"recipe.dropout": 0.5, "recipe.test_mode": "published"}
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_paired", "data.eval_batch": 8}
    smoke |= {"recipe.width": 4, "recipe.discriminator_width": 4, "recipe.dropout": 0.5}
    smoke |= {"recipe.test_mode": "published"}
    return variant(config, name, smoke=smoke, l1={"recipe.adversarial": 0.0}, published=published)
