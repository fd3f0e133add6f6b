"""A small convolutional classifier of real handwritten digits, which judges generated ones.

The run with seed 0 is the frozen one: `python -m cvjax.programs.freeze_judge --run=runs/classifier_digits` wrote
its last weights to `cvjax/weights/digit_classifier.npz`. No checkpoint was selected on the test split.

Paper: LeCun, Bottou, Bengio & Haffner, Gradient-Based Learning Applied to Document Recognition, 1998 (LeNet).
Command: python train.py --config=configs/classifier_digits.py --workdir=runs/classifier_digits
Result: accuracy 0.998 on the 500 test digits (mean of six seeds; 0.996 to 1.000).
Time: 0.5 minutes on two CPU cores.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "recognition.classifier",
        recipe=dict(
            dropout=0.3,
            label_smoothing=0.05,  # keeps the features from saturating, so that worse samples have a larger FID
            shift=1.0,
            angle=0.2,
            zoom=0.1,
            optimiser=dict(
                name="adamw",
                learning_rate=2e-3,
                weight_decay=1e-4,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=1900),  # to 0: no checkpoint is selected
            ),
        ),
        data=dict(name="digits", batch=128),
        steps=2000,
        log_every=100,
        eval_every=500,
        figure_every=500,
        checkpoint_every=500,
        checkpoint_best="accuracy",
        expect={"accuracy": (">=", 0.994)},
    )
    smoke = {"steps": 4, "recipe.width": 8, "data.batch": 16, "log_every": 1}
    return variant(config, name, smoke=smoke)
