"""pix2pix of one's own pairs of pictures, 256 x 256, at the sizes of the paper.

`--config.data.folder=FOLDER/a --config.data.images.target=FOLDER/b` names two folders of the same file names;
`--config.data.folder=FOLDER --config.data.images.target=right` a folder whose files show the input on the left and the
output on the right, "left" one for the other direction, and "image" copies the picture itself, for transforms that
change only the input. `--preview` draws pairs after the transforms. The paper's batch is `--config.data.batch=1` for
most of its datasets, with 200 epochs of 400 pairs.

There is no dropout, and the statistics of training hold, so that a picture has one translation and a film does not
flicker. The variant `published` has the paper's dropout, in its tests too, where each picture has its own statistics:
by it a film flickers, because every frame has other noise.

Pictures of up to 8 million pixels, `--config.recipe.largest`, go through the network whole, which takes some 2 GB
beside the parameters. Larger ones go in tiles, each with the 768 pixels around it that the network sees: in no more
memory, by several times the arithmetic. `published` has no tiles and refuses them: make them smaller first.

Paper: Isola et al., Image-to-Image Translation with Conditional Adversarial Networks, 2017 (arXiv:1611.07004).
Command: python train.py --config=configs/own_pairs.py --workdir=runs/own_pairs
Result: not measured; it depends on the folder.
Time: 10,000 steps; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "translation.pix2pix",
        recipe=dict(dropout=0.0, test_mode="running"),
        data=dict(
            images={"target": "right"},
            batch=8,
            eval_batch=8,
            # The paper's jitter.
            transforms=(
                dict(op="resize", size=286, shorter=True),
                dict(op="random_crop", size=256),
                dict(op="flip"),  # remove it if left and right matter, as for letters
            ),
            eval_transforms=(dict(op="resize", size=256, shorter=True), dict(op="center_crop", size=256)),
        ),
        steps=10_000,
        log_every=100,
        eval_every=2000,
        figure_every=500,
        checkpoint_every=1000,
        checkpoint_best="psnr",
        expect={"psnr": (">=", 0)},
    )
    # Drawn scenes replace one's own pictures.
    smoke = {"steps": 4, "log_every": 1, "data.name": "shapes/smoke_paired", "data.images.target": "target"}
    smoke |= {"recipe.depth": 5, "recipe.width": 4, "recipe.discriminator_width": 4, "recipe.field": 16}
    small = (dict(op="resize", size=36, shorter=True), dict(op="random_crop", size=32), dict(op="flip"))
    smoke |= {"data.transforms": small, "data.eval_transforms": ()}
    return variant(config, name, smoke=smoke, published={"recipe.dropout": 0.5, "recipe.test_mode": "published"})
