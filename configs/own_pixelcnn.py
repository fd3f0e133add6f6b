"""A small Gated PixelCNN of one's own colour pictures, 32 x 32.

`--config.data.folder=FOLDER` names their folder. `python -m cvjax.apply --run=runs/own_pixelcnn --input=FOLDER
--output=completed` then draws the lower half of pictures again.

Paper: van den Oord et al., Conditional Image Generation with PixelCNN Decoders, 2016 (arXiv:1606.05328).
Command: python train.py --config=configs/own_pixelcnn.py --workdir=runs/own_pixelcnn
Result: not measured; it depends on the folder.
Time: 20,000 steps; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=32, shorter=True), dict(op="center_crop", size=32))
    config = experiment(
        "generative.autoregressive.gated_pixelcnn",
        recipe=dict(
            shape=(32, 32, 3),
            architecture=dict(layers=8, width=63, head=255),
            ema=0.999,
        ),
        data=dict(batch=16, eval_batch=64, transforms=(*square, dict(op="flip")), eval_transforms=square),
        steps=20_000,
        log_every=100,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=1000,
        checkpoint_best="bits_per_dim",
        expect={"bits_per_dim": ("<=", 8.0)},  # what pixels that are drawn evenly cost
    )
    # Crops of photographs replace one's own pictures.
    small = (dict(op="resize", size=8),)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_crops/smoke", "data.eval_batch": 16}
    smoke |= {"recipe.shape": (8, 8, 3), "recipe.architecture.layers": 2, "recipe.architecture.width": 6}
    smoke |= {"recipe.architecture.head": 9}
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
