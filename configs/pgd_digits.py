"""Projected gradient descent on the small classifier of real handwritten digits, beside a single step and noise.

The variant "l2" attacks within Euclidean balls. `--config.borrow.classifier=RUN/classifier --config.data.name=...`
attacks any other classifier on its own images.

Paper: Madry, Makelov, Schmidt, Tsipras & Vladu, Towards Deep Learning Models Resistant to Adversarial Attacks, 2018
  (arXiv:1706.06083).
Command: python train.py --config=configs/pgd_digits.py --workdir=runs/pgd_digits
Result: accuracy 0.996 to 1.000; 0.574 to 0.594 under attack at 0.1 and 0.002 to 0.022 at 0.2, where a single step
  leaves 0.702 to 0.724 and 0.12 to 0.21, and random signs 0.99 and 0.91 to 0.924 (seeds 41, 9101 and
  9102 of both configs).
  "l2": 0.598 at 0.5 and 0.022 at 1.0, a single step 0.774 and 0.304 (seed 9101).
Time: 30 CPU seconds, after configs/classifier_digits.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "attacks.pgd",
        recipe=dict(epsilons=(0.1, 0.2), steps=40),
        borrow=dict(classifier="runs/classifier_digits/classifier"),
        data=dict(name="digits", batch=8, eval_batch=512),
        steps=0,
        expect={
            # A weaker attack leaves a higher accuracy.
            "robust_accuracy_0_1": ("<=", 0.62),
            "robust_accuracy_0_2": ("<=", 0.05),
            "gain_over_one_step_0_1": (">=", 0.1),
            "gain_over_one_step_0_2": (">=", 0.06),
        },
    )
    smoke = {"recipe.steps": 2, "data.eval_batch": 16, "data.eval_split": "test[:32]"}
    return variant(config, name, smoke=smoke, l2={"recipe.norm": "l2", "recipe.epsilons": (0.5, 1.0)})
