"""U-Net on a folder of one's own pictures, and a folder of masks that say which class each pixel is of.

`--config.data.folder=FOLDER/images --config.data.class_maps.class_map=FOLDER/masks --config.recipe.classes=N` name both
and the number of classes, background included. Each mask has its picture's name; their numbers or colours get their
names from `labels.txt`, `classes.json` or `colours.json` in either folder, as `cvjax/data/mask_files.py` reads them.
`--preview` draws pictures and masks after the transforms.

Paper: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597).
Command: python train.py --config=configs/own_masks.py --workdir=runs/own_masks
Result: not measured; it depends on the folder.
Time: 2,000 steps; not measured.
"""

from cvjax.config import experiment, variant

STEPS = 2000


def _transforms(size: int, train: bool) -> tuple:
    """Fits pictures into a square; for training, also scales, mirrors and recolours them at random."""
    square = dict(op="letterbox", size=(size, size))
    jitter = (
        dict(op="random_scale_crop", size=size, scale=(0.75, 1.5), step=0.0),
        dict(op="flip"),  # remove it if left and right matter, as for letters
        dict(op="color_jitter", brightness=0.15, contrast=0.3, saturation=0.3, hue=0.05),
    )
    return (square, *jitter) if train else (square,)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.unet",
        recipe=dict(
            shape=(128, 128, 3),
            classes=2,
            width=16,
            padding="same",  # the paper's 184 pixels of margin would be most of what is computed
            batch_norm=True,
            dropout=0.1,
            loss=dict(cross_entropy=1.0, dice=1.0),  # objects may be small
            ema=0.99,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-3,
                warmup=100,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            class_maps={"class_map": "masks"},
            batch=8,
            eval_batch=8,
            transforms=_transforms(128, train=True),
            eval_transforms=_transforms(128, train=False),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        checkpoint_best="mean_iou",
        expect={"mean_iou": (">=", 0)},
    )
    # Digits replace one's own pictures.
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.class_maps.class_map": "class_map"}
    smoke |= {"recipe.shape": (32, 32, 3), "recipe.classes": 11, "recipe.width": 2, "recipe.depth": 2}
    smoke |= {"data.transforms": _transforms(32, train=True), "data.eval_transforms": _transforms(32, train=False)}
    return variant(config, name, smoke=smoke)
