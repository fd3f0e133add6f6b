"""DDPM of drawn scenes of 32 pixels, by the kind of their largest shape: the pixels' side of a comparison.

The other side is `latent_diffusion_shapes`, with the same data, judge and sampler. The U-Net is of a width at which a
few thousand steps are affordable on a CPU.

Paper: Ho, Jain & Abbeel, Denoising Diffusion Probabilistic Models, 2020 (arXiv:2006.11239).
Command: python train.py --config=configs/ddpm_shapes.py --workdir=runs/ddpm_shapes
Result: Fréchet distance 40, that of a Gaussian per class being 42 and that of training images 0.7; 2.86 bits a value,
  denoising error 0.0060 (seed 9401). Most samples are shapes with clean edges, but in a third of them noise is left,
  and the judge takes 0.41 of all for their class, one in three being chance. After 1,000 steps the distance was 803.
Time: 9 CPU minutes.
"""

from cvjax.config import experiment, variant

STEPS = 4000


def get_config(name: str = ""):
    """Returns the experiment; the variant "smoke" takes seconds."""
    config = experiment(
        "generative.diffusion.ddpm",
        recipe=dict(
            shape=(32, 32, 3),
            classes=3,
            bound_steps=4,
            unet=dict(width=16, multipliers=(1, 2, 2), blocks=1, attention=(8,), dropout=0.0),
            sampling=dict(sampler="ddim", steps=25),
            repeats=2,
            ema=0.995,
            optimiser=dict(
                name="adamw",
                learning_rate=1e-3,
                warmup=100,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        data=dict(
            name="shapes/many",
            batch=16,
            eval_batch=200,
            eval_split="test[:400]",
            transforms=(dict(op="flip"), dict(op="random_quarter_turn")),
        ),
        judge="runs/classifier_shapes/classifier",
        judge_samples=400,
        steps=STEPS,
        log_every=50,
        eval_every=STEPS,
        figure_every=STEPS,
        checkpoint_every=200,
        expect={"denoising_error": ("<=", 0.03), "bits_per_dim": ("<=", 4.5)},
    )
    smoke = {
        "steps": 4,
        "recipe.unet.width": 8,
        "recipe.unet.attention": (8,),
        "recipe.process.steps": 8,
        "recipe.sampling.steps": 4,
        "recipe.bound_steps": 2,
        "recipe.repeats": 1,
        "data.name": "shapes/smoke_solid",
        "data.batch": 16,
        "data.eval_batch": 8,
        "data.eval_split": "test",
        "log_every": 1,
        "judge": "pixels",
        "judge_samples": 32,
    }
    return variant(config, name, smoke=smoke)
