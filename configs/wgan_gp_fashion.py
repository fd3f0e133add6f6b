"""WGAN-GP on Fashion-MNIST, with a quarter of DCGAN's channels, for a budget of ten minutes of a CPU core.

configs/classifier_fashion.py says where the images come from; its run is the judge.

Paper: Gulrajani et al., Improved Training of Wasserstein GANs, 2017 (arXiv:1704.00028).
Command: python train.py --config=configs/wgan_gp_fashion.py --workdir=runs/wgan_gp_fashion
Result: not measured in full; the bars are guesses.
Time: 3,000 steps of the generator and 15,000 of the critic, 16 epochs; 0.2 CPU seconds for one and five.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    steps, critic_steps = 3000, 5

    def adam(updates: int):
        # Four times the paper's learning rate, for a run of minutes; decayed to 0, as for its ResNets on CIFAR-10.
        decay = dict(name="linear_schedule", end_value=0.0, transition_steps=updates)
        return dict(name="adam", learning_rate=4e-4, b1=0.0, b2=0.9, schedule=decay)

    config = experiment(
        "generative.gans.wgan",
        recipe=dict(
            shape=(28, 28, 1),
            width=32,
            base=7,
            generator_optimiser=adam(steps),
            discriminator_optimiser=adam(steps * critic_steps),
            training=dict(discriminator_steps=critic_steps),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=320, eval_batch=400),
        steps=steps,
        log_every=100,
        judge="runs/classifier_fashion/classifier",
        judge_every=steps,
        figure_every=1000,
        checkpoint_every=500,
        expect={"frechet_distance_over_control": ("<", 1.0), "gradient_error": ("<=", 0.2)},
    )
    smoke = {"steps": 4, "recipe.width": 8, "log_every": 1, "judge": "pixels", "judge_samples": 32}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 40, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
