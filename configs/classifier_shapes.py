"""A small convolutional classifier of drawn scenes by the kind of their largest shape, which judges drawn ones.

`config.judge="runs/classifier_shapes/classifier"` measures samples of `ddpm_shapes` and `latent_diffusion_shapes` by
its features: a Fréchet distance that compares those two, and with no published FID.

Paper: LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition, 1998 (LeNet).
Command: python train.py --config=configs/classifier_shapes.py --workdir=runs/classifier_shapes
Result: accuracy 0.971 (seed 9401). In some scenes the two largest shapes are nearly of one size.
Time: 3 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant

STEPS = 800


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.classifier",
        recipe=dict(
            shape=(32, 32, 3),
            classes=3,
            width=24,
            shift=0.0,  # scenes are mirrored and turned by quarters instead: distortions have black borders
            angle=0.0,
            zoom=0.0,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-4,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="shapes/many",
            batch=64,
            eval_batch=200,
            transforms=(dict(op="flip"), dict(op="random_quarter_turn")),
        ),
        steps=STEPS,
        log_every=50,
        eval_every=400,
        figure_every=400,
        checkpoint_every=400,
        expect={"accuracy": (">=", 0.94)},
    )
    smoke = {"steps": 4, "recipe.width": 8, "data.name": "shapes/smoke_solid", "data.batch": 16, "data.eval_batch": 8}
    return variant(config, name, smoke={**smoke, "log_every": 1})
