"""U-Net on scenes of real digits, upright and side by side, into ten digits and the background.

The variant "border_weights" separates digits that touch by the paper's weights, "touching" without them.

Paper: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597).
Command: python train.py --config=configs/unet_scenes.py --workdir=runs/unet_scenes
Result: mean IoU 0.825 to 0.834 on the 1,000 held-out scenes, boundary F 0.754 to 0.796 (seeds 4021, 7121 and 9101).
  With the weights 0.824 of the digits that touch are told apart, without them 0.756; mean IoU 0.913 and 0.920, F1 of
  instances 0.685 and 0.725 (seed 4021).
Time: 0.5 CPU seconds per step, about 11 minutes on two idle CPU cores.
"""

from cvjax.config import experiment, variant

STEPS = 2600
CLASSES = ("background", *"0123456789")
COLOURS = dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5)
# Digits of one class that touch, kept apart by a border of background, which the paper's weights make heavy.
SEPARATE, WEIGHTS = dict(op="separate"), dict(op="border_weights", w0=10.0, sigma=5.0)
TOUCHING = {
    "recipe.classes": ("background", "digit"),
    "data.name": "digit_scenes/64",
    "data.keep": ("instances",),
    "data.class_maps": {"class_map": dict(source="class_map", classes={"background": 0, "digit": (*range(1, 11),)})},
    "data.transforms": (SEPARATE, COLOURS),
    "data.eval_transforms": (SEPARATE,),
}
WEIGHTED = {
    "recipe.weights": "border_weights",
    "data.transforms": (SEPARATE, WEIGHTS, COLOURS),
    "data.eval_transforms": (SEPARATE, WEIGHTS),
}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.unet",
        recipe=dict(
            shape=(64, 64, 3),
            classes=CLASSES,
            width=12,
            padding="same",  # the paper's 184 pixels of margin would be most of what is computed
            batch_norm=True,
            dropout=0.1,
            loss=dict(cross_entropy=1.0, dice=1.0),  # nine tenths of the pixels are background
            ema=0.99,
            optimiser=dict(
                name="adamw",
                learning_rate=3e-3,
                weight_decay=1e-3,
                warmup=100,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="digit_scenes/plain_64",
            class_maps={"class_map": "class_map"},
            batch=16,
            eval_batch=128,
            # No flip: most mirrored digits are not digits.
            transforms=(COLOURS,),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=1300,
        figure_every=1300,
        checkpoint_every=500,
        expect={"mean_iou": (">=", 0.817)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.batch": 16, "data.eval_batch": 16}
    smoke |= {"recipe.width": 4, "recipe.depth": 2}
    return variant(config, name, smoke=smoke, touching=TOUCHING, border_weights=TOUCHING | WEIGHTED)
