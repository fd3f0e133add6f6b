"""Class-conditional DDPM of Fashion-MNIST, an eighth as wide as the paper's U-Net and with one block a size.

For a budget of ten minutes of a CPU core; the schedule of 1,000 steps is the paper's, and samples are drawn in 20 steps
of DPM-Solver++. configs/classifier_fashion.py says where the images come from; its run is the judge.

Paper: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239).
Command: python train.py --config=configs/ddpm_fashion.py --workdir=runs/ddpm_fashion
Result: not measured in full; the bars are guesses.
Time: 3,000 steps, 1.6 epochs, of 0.2 CPU seconds, and about 5 minutes for the evaluation.
"""

from cvjax.config import experiment, variant

STEPS = 3000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.diffusion.ddpm",
        recipe=dict(
            shape=(28, 28, 1),
            classes=10,
            bound_steps=5,
            unet=dict(width=16, multipliers=(1, 2, 2), blocks=1, attention=(7,), dropout=0.0),
            sampling=dict(sampler="dpm_solver", steps=20),
            repeats=1,
            ema=0.999,
            optimiser=dict(
                name="adam",
                learning_rate=1e-3,
                warmup=200,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 200),
            ),
        ),
        data=dict(folder="/usr/share/datasets/fashion-mnist", batch=32, eval_batch=400),
        steps=STEPS,
        log_every=100,
        judge="runs/classifier_fashion/classifier",
        judge_every=STEPS,
        figure_every=STEPS,
        checkpoint_every=500,
        expect={"frechet_distance_over_control": ("<", 1.0), "class_accuracy": (">=", 0.8)},
    )
    smoke = {
        "steps": 4,
        "recipe.unet.width": 8,
        "recipe.unet.multipliers": (1, 2),
        "recipe.unet.attention": (),
        "recipe.process.steps": 8,
        "recipe.sampling.steps": 4,
        "recipe.bound_steps": 2,
        "data.name": "fashion_mnist",
        "data.folder": "",
        "data.batch": 16,
        "data.eval_batch": 16,
        "log_every": 1,
        "judge": "pixels",
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
