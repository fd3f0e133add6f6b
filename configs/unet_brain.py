"""U-Net on the grey and white matter of slices of the MNI152 brain: the middle block of slices is held out.

It is one average brain, so the figure is one of interpolation between slices, and not of other people's brains. The
data come from packages: pip install nibabel && pip install --no-deps nilearn==0.14.1

Paper: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597).
Command: python train.py --config=configs/unet_brain.py --workdir=runs/unet_brain
Result: mean IoU 0.892 on the held-out slices, 0.858 of grey and 0.859 of white matter, boundary F 0.949 (seed 5107; one
  seed).
Time: 13 minutes of one CPU core, on a machine that did more besides.
"""

from cvjax.config import experiment, variant

STEPS = 500
CLASSES = ("background", "grey", "white")
FIT = (dict(op="letterbox", size=(96, 80), value=0.0), dict(op="grayscale"))  # for other pictures: slices are so


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.unet",
        recipe=dict(
            shape=(96, 80, 1),
            classes=CLASSES,
            width=16,
            padding="same",  # the paper's 184 pixels of margin would be most of what is computed
            batch_norm=True,
            dropout=0.1,
            loss=dict(cross_entropy=1.0, dice=1.0),
            ema=0.98,
            optimiser=dict(
                name="adamw",
                learning_rate=3e-3,
                weight_decay=1e-3,
                warmup=50,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 50),
            ),
        ),
        data=dict(
            name="brain",
            class_maps={"class_map": "class_map"},
            batch=8,
            eval_batch=16,
            # No flip: the template is symmetric, and no head is upside down.
            transforms=(
                *FIT,
                dict(op="elastic", std=3.0, grid=4),  # section 3.1
                dict(op="color_jitter", brightness=0.05, contrast=0.2),
            ),
            eval_transforms=FIT,
        ),
        steps=STEPS,
        log_every=20,
        eval_every=100,
        figure_every=100,
        checkpoint_every=100,
        expect={"mean_iou": (">=", 0.84)},
    )
    # Digits replace the brain, whose packages may not be installed.
    digits = dict(source="class_map", classes={"background": 0, "grey": (*range(1, 6),), "white": (*range(6, 11),)})
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.class_maps": {"class_map": digits}}
    smoke |= {"recipe.width": 4, "recipe.depth": 2}
    return variant(config, name, smoke=smoke)
