"""A small VGG that tells crops of photographs and textures apart: a network to look into that needs no download.

Its weights come with the package, as `package:cvjax/vgg_photos`; see `cvjax/programs/freeze_vgg.py`.

Paper: Simonyan & Zisserman, Very Deep Convolutional Networks for Large-Scale Image Recognition, 2015 (arXiv:1409.1556).
Command: python train.py --config=configs/vgg_photos.py --workdir=runs/vgg_photos
Result: top-1 0.988 on the held-out crops (seed 6151).
Time: 0.2 CPU seconds per step; 5 minutes on one idle CPU core.
"""

from cvjax.config import experiment, variant

STEPS = 1200


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.vgg_classifier",
        recipe=dict(
            shape=(64, 64, 3),
            classes=15,
            depth=11,
            width=16,
            head="mean",
            batch_norm=True,
            dropout=0.2,
            label_smoothing=0.1,
            ema=0.98,
            optimiser=dict(
                name="adamw",
                learning_rate=3e-3,
                weight_decay=1e-2,
                warmup=50,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 50),
            ),
        ),
        data=dict(
            name="photo_crops",
            batch=48,
            eval_batch=120,
            transforms=(
                dict(op="flip"),
                dict(op="random_resized_crop", size=64, scale=(0.6, 1.0)),
                dict(op="color_jitter", brightness=0.05, contrast=0.1, saturation=0.1),
            ),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=400,
        figure_every=STEPS,
        checkpoint_every=400,
        expect={"top1": (">=", 0.95)},
    )
    smoke = {"steps": 3, "recipe.width": 4, "log_every": 1}
    smoke |= {"data.name": "photo_crops/smoke", "data.batch": 8, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
