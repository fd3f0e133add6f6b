"""Is this a face? A small ResNet on real crops of 25 pixels: 140 to learn from, 60 to be judged on.

Paper: Huang, Ramesh, Berg & Learned-Miller, Labeled Faces in the Wild, 2007, has the photographs; He, Zhang, Ren & Sun,
  Deep Residual Learning for Image Recognition, 2016 (arXiv:1512.03385), the network.
Command: python train.py --config=configs/lfw_faces.py --workdir=runs/lfw_faces
Result: accuracy 1.0 on the 60 held-out crops (seed 9601).
Time: 36 CPU seconds.
"""

from cvjax.config import experiment, variant

STEPS = 300


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.image_classifier",
        recipe=dict(
            shape=(25, 25, 1),
            classes=2,
            depth=18,
            width=8,
            stem="small",
            strides=(2, 2, 2),
            label_smoothing=0.1,
            ema=0.98,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-2,
                warmup=30,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 30),
            ),
        ),
        data=dict(
            name="lfw_faces",
            batch=32,
            eval_batch=64,
            transforms=(
                dict(op="flip"),
                dict(op="random_shift", pixels=2),
                dict(op="color_jitter", brightness=0.2, contrast=0.3),
            ),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=100,
        figure_every=300,
        checkpoint_every=300,
        expect={"top1": (">=", 0.95)},
    )
    smoke = {"steps": 4, "recipe.width": 4, "recipe.strides": (2, 2), "log_every": 1}
    return variant(config, name, smoke=smoke | {"data.batch": 16, "data.eval_batch": 16})
