"""U-Net with the paper's network and unpadded convolutions on the Oxford-IIIT pets: pet or background.

The border between the two, which the dataset does not decide, is void.

Paper: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597).
Command: python train.py --config=configs/unet_pet.py --workdir=runs/unet_pet
Result: not measured.
Time: 20,000 steps of 8 images; not measured.
"""

from cvjax.config import experiment, variant

SIZE = 388  # which 92 mirrored pixels on each side make 572


def _transforms(size: int, train: bool) -> tuple:
    """Fits images into a square; for training, also mirrors, deforms and recolours them."""
    square = dict(op="letterbox", size=(size, size))
    augmentation = (
        dict(op="flip"),
        dict(op="elastic", std=10.0, grid=3),  # section 3.1
        dict(op="color_jitter", brightness=0.2, contrast=0.2),
    )
    return (square, *augmentation) if train else (square,)


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.unet",
        recipe=dict(
            shape=(SIZE, SIZE, 3),
            classes=2,
            # The paper's momentum of 0.99, for which it takes one tile a step.
            optimiser=dict(name="sgd", learning_rate=1e-3, momentum=0.99, warmup=500, clip=10.0),
        ),
        data=dict(
            name="oxford_iiit_pet",
            class_maps={"class_map": "segmentation_mask"},
            batch=8,
            eval_batch=8,
            workers=8,
            transforms=_transforms(SIZE, train=True),
            eval_transforms=_transforms(SIZE, train=False),
        ),
        steps=20_000,
        log_every=100,
        eval_every=2000,
        figure_every=2000,
        checkpoint_every=2000,
        expect={"mean_iou": (">=", 0.85)},
    )
    # Digits replace the pets, which have to be downloaded.
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.class_maps.class_map": "class_map"}
    smoke |= {"data.workers": 0, "recipe.shape": (32, 32, 3), "recipe.classes": 11}
    smoke |= {"recipe.width": 2, "recipe.depth": 2}
    smoke |= {"data.transforms": _transforms(32, train=True), "data.eval_transforms": _transforms(32, train=False)}
    return variant(config, name, smoke=smoke)
