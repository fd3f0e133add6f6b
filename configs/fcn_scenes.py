"""FCN-8s at once on scenes of real digits, upright and side by side, enlarged three times for its stride of 8 pixels.

The variants "fcn32s" and "fcn16s" end with larger strides.

Paper: Long et al., Fully Convolutional Networks for Semantic Segmentation, 2015 (arXiv:1411.4038).
Command: python train.py --config=configs/fcn_scenes.py --workdir=runs/fcn_scenes
Result: mean IoU 0.714 to 0.730 on the 1,000 held-out scenes, boundary F 0.602 to 0.623 (seeds 4021, 7121 and 9101);
  0.623 and 0.443 of FCN-16s, 0.247 and 0.123 of FCN-32s (seed 4021).
Time: 25 minutes of one CPU core; 0.95 CPU seconds per step.
"""

from cvjax.config import experiment, variant

STEPS = 1600
CLASSES = ("background", *"0123456789")
ENLARGE = dict(op="resize", size=(192, 192))


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.fcn",
        recipe=dict(
            shape=(192, 192, 3),
            classes=CLASSES,
            skip_scales=(1.0, 1.0),  # batch normalisation has scaled the pools
            width=8,
            hidden=128,
            batch_norm=True,
            dropout=0.1,
            padding=1,  # 100 zeros around would be two thirds of what is computed
            loss=dict(cross_entropy=1.0, dice=1.0),  # nine tenths of the pixels are background
            ema=0.99,
            # The paper starts from an ImageNet classifier.
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
            batch=8,
            eval_batch=16,
            transforms=(
                dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.5),
                ENLARGE,
            ),
            eval_transforms=(ENLARGE,),
        ),
        steps=STEPS,
        log_every=100,
        eval_every=800,
        figure_every=800,
        checkpoint_every=400,
        expect={"mean_iou": (">=", 0.7)},
    )
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.batch": 8, "data.eval_batch": 8}
    smoke |= {"recipe.shape": (64, 64, 3), "recipe.width": 2, "recipe.hidden": 8, "recipe.depth": 11}
    smoke |= {"data.transforms": (), "data.eval_transforms": ()}
    return variant(config, name, smoke=smoke, fcn32s={"recipe.stride": 32}, fcn16s={"recipe.stride": 16})
