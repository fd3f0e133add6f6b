"""The fast gradient sign method on the small classifier of real handwritten digits.

`--config.borrow.classifier=RUN/classifier --config.data.name=...` attacks any other classifier on its own images.

Paper: Goodfellow, Shlens & Szegedy, Explaining and Harnessing Adversarial Examples, 2015 (arXiv:1412.6572).
Command: python train.py --config=configs/fgsm_digits.py --workdir=runs/fgsm_digits
Result: accuracy 0.998; 0.672 to 0.734 under attack at 0.1 and 0.136 to 0.220 at 0.2, where random signs leave 0.916 to
  0.940 (five seeds of both configs).
Time: 10 seconds on two CPU cores, after configs/classifier_digits.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "attacks.fgsm",
        recipe=dict(epsilons=(0.1, 0.2)),
        borrow=dict(classifier="runs/classifier_digits/classifier"),
        data=dict(name="digits", batch=8, eval_batch=512),
        steps=0,
        expect={
            # A weaker attack leaves a higher accuracy, and noise of the same size barely lowers it.
            "robust_accuracy_0_1": ("<=", 0.78),
            "robust_accuracy_0_2": ("<=", 0.25),
            "random_sign_accuracy_0_2": (">=", 0.9),
        },
    )
    return variant(config, name, smoke={"data.eval_batch": 16, "data.eval_split": "test[:32]"})
