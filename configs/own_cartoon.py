"""pix2pix on pairs of one's own: photographs and their cartoons; for other pairs see `own_pairs`.

    python -m cvjax.translation.cartoon --input=PHOTOGRAPHS --output=pairs --size=286
    python train.py --config=configs/own_cartoon.py --workdir=runs/own_cartoon --config.data.folder=pairs
    python -m cvjax.apply --run=runs/own_cartoon --input=film.mp4 --output=cartoon.mp4

The folder has pictures with both sides beside each other, the photograph on the left, in the folders train and test or
with a tenth of them held out. `--config.data.images.target=left` learns the other direction, and a folder's name takes
the targets from there, by the same file names. The variant `filtered` needs no pairs: OpenCV makes the targets of a
folder of photographs, `data.derive.target.function` says how.

Paper: Isola, Zhu, Zhou & Efros, Image-to-Image Translation with Conditional Adversarial Networks, 2017
  (arXiv:1611.07004).
Command: python train.py --config=configs/own_cartoon.py --workdir=runs/own_cartoon
Result: not measured; it depends on the folder.
Time: 20,000 steps; not measured.
"""

from cvjax.config import experiment, variant


def _crops(size: int, train: bool) -> tuple:
    """The paper's jitter for training: scaled to a tenth more, cropped at random and mirrored."""
    jitter = (dict(op="resize", size=size * 143 // 128, shorter=True), dict(op="random_crop", size=size))
    fit = (dict(op="resize", size=size, shorter=True), dict(op="center_crop", size=size))
    return (*jitter, dict(op="flip")) if train else fit


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    derived = dict(target=dict(function="cvjax.translation.cartoon:ink", kind="image"))
    pairs = dict(derive=derived) if name == "filtered" else dict(images={"target": "right"})
    config = experiment(
        "translation.pix2pix",
        recipe=dict(depth=7, width=64, dropout=0.0, resize=True, test_mode="running"),
        data=dict(
            batch=8, eval_batch=8, transforms=_crops(256, train=True), eval_transforms=_crops(256, train=False), **pairs
        ),
        steps=20_000,
        log_every=50,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"psnr": (">=", 0)},
    )
    # Photographs that come with scikit-image, each its own target, replace one's own.
    smoke = {"steps": 4, "log_every": 1, "data.name": "photos/whole", "data.images.target": "image"}
    smoke |= {"data.eval_split": "test[:2]"}
    smoke |= {"data.transforms": _crops(32, train=True), "data.eval_transforms": _crops(32, train=False)}
    smoke |= {"recipe.depth": 3, "recipe.width": 4, "recipe.discriminator_width": 4, "recipe.field": 16}
    return variant(config, name, smoke=smoke, filtered={})
