"""DCGAN of one's own colour pictures, 64 x 64, with half the paper's channels.

`--config.data.folder=FOLDER` names their folder.

Paper: Radford, Metz & Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, 2016 (arXiv:1511.06434).
Command: python train.py --config=configs/own_gan.py --workdir=runs/own_gan
Result: not measured; it depends on the folder.
Time: 20,000 steps; not measured.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    square = (dict(op="resize", size=64, shorter=True), dict(op="center_crop", size=64))
    config = experiment(
        "generative.gans.gan",
        recipe=dict(shape=(64, 64, 3), width=64, training=dict(real_label=0.9, ema=0.999)),
        data=dict(batch=64, eval_batch=64, transforms=(*square, dict(op="flip")), eval_transforms=square),
        steps=20_000,
        log_every=100,
        eval_every=2000,
        judge="pixels",
        judge_samples=2000,
        figure_every=500,
        checkpoint_every=1000,
        checkpoint_best="fid_over_noise",
        expect={"fid_over_noise": ("<", 1.0)},  # noise with the mean and the variance of each pixel
    )
    # Crops of photographs replace one's own pictures.
    small = (dict(op="resize", size=16),)
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_crops/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.shape": (16, 16, 3), "recipe.width": 4, "judge_samples": 32}
    return variant(config, name, smoke=smoke | {"data.transforms": small, "data.eval_transforms": small})
