"""Adversarial training of the small classifier of digits, which then withstands changes of 0.2 in every pixel.

Other attacks borrow what comes out: `--config.borrow.classifier=runs/adversarial_training_digits/classifier`.

Paper: Madry, Makelov, Schmidt, Tsipras & Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, 2018
  (arXiv:1706.06083).
Command: python train.py --config=configs/adversarial_training_digits.py --workdir=runs/adversarial_training_digits
Result: accuracy 0.988; 0.926 under PGD-40 at 0.1 and 0.678 at 0.2, where ordinary training leaves 0.58 and 0.002 (seed
  41 of both configs).
Time: 17 minutes beside other work on two CPU cores, after configs/classifier_digits.py.
"""

from cvjax.config import experiment, variant

STEPS = 1500


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "attacks.adversarial_training",
        recipe=dict(
            epsilon=0.2,
            steps=7,
            optimiser=dict(
                name="adam",
                learning_rate=2e-3,
                warmup=100,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        borrow=dict(classifier="runs/classifier_digits/classifier"),
        data=dict(name="digits", batch=128, eval_batch=256),
        steps=STEPS,
        log_every=50,
        eval_every=500,
        checkpoint_every=500,
        expect={"robust_accuracy_0_2": (">", 0.5)},
    )
    smoke = {"steps": 4, "recipe.steps": 2, "recipe.evaluation_steps": 2, "log_every": 1}
    smoke |= {"data.batch": 16, "data.eval_batch": 16, "data.eval_split": "test[:32]"}
    return variant(config, name, smoke=smoke)
