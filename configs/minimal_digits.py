"""The smallest changes that make the small classifier of digits see another one: L-BFGS, Carlini-Wagner, DeepFool.

Each of the first two leads to a random target, the same for both; DeepFool to any other class. Beside them, the plain
iteration up the target's gradient. `--config.recipe.methods=("deepfool",)` runs only some of them.

Paper: Szegedy et al., Intriguing Properties of Neural Networks, 2014 (arXiv:1312.6199); Carlini & Wagner, Towards
  Evaluating the Robustness of Neural Networks, 2017 (arXiv:1608.04644); Moosavi-Dezfooli et al., DeepFool, 2016.
Command: python train.py --config=configs/minimal_digits.py --workdir=runs/minimal_digits
Result: success and root mean square of the change: Szegedy's 1.000 and 0.103, Carlini-Wagner's 0.992 and 0.099,
  DeepFool's 0.968 and 0.092, the plain iteration's 1.000 and 0.119 (seed 9101 of both configs).
Time: 5 minutes on a CPU core that other programs shared, after configs/classifier_digits.py.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "attacks.minimal",
        # Larger steps than the paper's, from a constant that suits digits, arrive in a fifth of the time.
        recipe=dict(carlini_wagner=dict(steps=300, search_steps=6, learning_rate=0.05, constant=1.0)),
        borrow=dict(classifier="runs/classifier_digits/classifier"),
        data=dict(name="digits", batch=8, eval_batch=256),
        steps=0,
        expect={
            "success/szegedy": (">=", 0.95),
            "rms_over_carlini_wagner": ("<=", 1.1),
            "success/deepfool": (">=", 0.95),
        },
    )
    smoke = {"recipe.methods": ("szegedy", "deepfool"), "recipe.szegedy.steps": 3, "recipe.szegedy.search_steps": 3}
    smoke |= {"recipe.deepfool.steps": 3, "data.eval_batch": 16, "data.eval_split": "test[:32]"}
    return variant(config, name, smoke=smoke)
