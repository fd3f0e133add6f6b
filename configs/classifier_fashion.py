"""A narrow ResNet-18 of three stages for Fashion-MNIST, which judges what other configs generate of it.

The images are those of the Debian package `dataset-fashion-mnist`. `--config.data.folder=FOLDER` names another place of
its four IDX files, and `--config.data.name=fashion_mnist --config.data.folder=` takes them from TFDS.

Paper: He, Zhang, Ren & Sun, Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385).
Command: python train.py --config=configs/classifier_fashion.py --workdir=runs/classifier_fashion
Result: top-1 0.916 on the 10,000 test images (seed 9401); 0.741 of the shirts, the hardest class, are known.
Time: 0.1 CPU seconds per step; 3 minutes on one idle CPU core.
"""

from cvjax.config import experiment, variant

STEPS = 1500
CLASSES = ("t-shirt", "trouser", "pullover", "dress", "coat", "sandal", "shirt", "sneaker", "bag", "ankle boot")


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        recipe=dict(
            shape=(28, 28, 1),
            classes=CLASSES,
            depth=18,
            width=16,
            stem="small",
            strides=(2, 2, 2),
            label_smoothing=0.05,
            ema=0.99,
            optimiser=dict(
                name="sgd",
                learning_rate=0.1,
                momentum=0.9,
                nesterov=True,
                weight_decay=5e-4,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=128, eval_batch=400, transforms=(dict(op="flip"),)),
        steps=STEPS,
        log_every=100,
        eval_every=500,
        figure_every=STEPS,
        checkpoint_every=500,
        expect={"top1": (">=", 0.9)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.strides": (2, 2), "log_every": 1}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
