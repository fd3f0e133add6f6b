"""U-Net on real nuclei, some of which touch: trained on one half of a micrograph, tested on the other.

Nuclei that touch get a border of background between them. The variant "border_weights" makes it heavy by the paper's
weights. The data come from a package: pip install --no-deps stardist==0.9.2

Paper: Ronneberger et al., U-Net: Convolutional Networks for Biomedical Image Segmentation, 2015 (arXiv:1505.04597).
Command: python train.py --config=configs/unet_nuclei.py --workdir=runs/unet_nuclei
Result: mean IoU 0.935 on the held-out half, boundary F 0.879, and of the nuclei that touch others 56 % are found apart
  from them (seed 5107; one seed). With the weights 0.930, 0.858 and 89 %.
Time: 9 minutes of one CPU core, 10 with the weights, on a machine that did more besides.
"""

from cvjax.config import experiment, variant

STEPS = 220
CLASSES = ("background", "nucleus")
FIT = (dict(op="letterbox", size=(128, 128), value=0.0), dict(op="grayscale"))  # for other pictures: crops are so
MOVES = (
    *FIT,
    dict(op="flip"),
    dict(op="flip", axis="vertical"),
    dict(op="elastic", std=5.0, grid=4),  # section 3.1
)
COLOURS = dict(op="color_jitter", brightness=0.05, contrast=0.3)
# After what moves pixels: nuclei that touch are kept apart by a border, of which the weights depend on distances.
SEPARATE, WEIGHTS = dict(op="separate"), dict(op="border_weights", w0=10.0, sigma=5.0)
WEIGHTED = {
    "recipe.weights": "border_weights",
    "data.transforms": (*MOVES, SEPARATE, WEIGHTS, COLOURS),
    "data.eval_transforms": (*FIT, SEPARATE, WEIGHTS),
    "expect": {"mean_iou": (">=", 0.9), "separated": (">=", 0.7)},  # 0.56 without the weights
}


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "segmentation.unet",
        recipe=dict(
            shape=(128, 128, 1),
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
                warmup=30,
                clip=10.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 30),
            ),
        ),
        data=dict(
            name="nuclei",
            keep=("instances",),
            class_maps={"class_map": "class_map"},
            batch=8,
            eval_batch=8,
            transforms=(*MOVES, SEPARATE, COLOURS),
            eval_transforms=(*FIT, SEPARATE),
        ),
        steps=STEPS,
        log_every=20,
        eval_every=110,
        figure_every=110,
        checkpoint_every=110,
        expect={"mean_iou": (">=", 0.9)},
    )
    # Digits replace the nuclei, whose package may not be installed.
    digits = dict(source="class_map", classes={"background": 0, "nucleus": (*range(1, 11),)})
    smoke = {"steps": 4, "log_every": 1, "data.name": "digit_scenes/smoke", "data.class_maps": {"class_map": digits}}
    smoke |= {"recipe.width": 4, "recipe.depth": 2}
    return variant(config, name, smoke=smoke, border_weights=WEIGHTED)
