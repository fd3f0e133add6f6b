"""DCGAN on Fashion-MNIST, with half the paper's channels, for a budget of ten minutes of a CPU core.

configs/classifier_fashion.py says where the images come from; its run is the judge. From 7 x 7 features, 28 x 28 pixels
take two doublings, not the four of the paper's 64 x 64.

Paper: Radford, Metz & Chintala, Unsupervised Representation Learning with Deep Convolutional Generative Adversarial
Networks, 2016 (arXiv:1511.06434).
Command: python train.py --config=configs/dcgan_fashion.py --workdir=runs/dcgan_fashion
Result: not measured in full; the bars are guesses. After 400 steps the distance is 4.6 times that of
  a Gaussian for each class (seed 9401).
Time: 5,000 steps, five epochs, of about 0.15 CPU seconds.
"""

from cvjax.config import experiment, variant


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.gans.gan",
        recipe=dict(shape=(28, 28, 1), latent=100, width=64, base=7, training=dict(real_label=0.9)),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=64, eval_batch=400),
        steps=5000,
        log_every=250,
        judge="runs/classifier_fashion/classifier",
        judge_every=5000,
        figure_every=2500,
        checkpoint_every=1000,
        expect={"frechet_distance_over_control": ("<", 1.0)},
    )
    smoke = {"steps": 4, "recipe.width": 8, "log_every": 1, "judge": "pixels", "judge_samples": 32}
    smoke |= {"data.name": "fashion_mnist", "data.folder": "", "data.batch": 16, "data.eval_batch": 16}
    return variant(config, name, smoke=smoke)
