"""Latent diffusion of drawn scenes of 32 pixels, by the kind of their largest shape, on codes of 8 x 8 x 3.

`ddpm_shapes` is the same in pixels, with the same data, judge and sampler: compare `frechet_distance` and
`gflops_per_sample`. The judge is a run of `classifier_shapes`.

Paper: Rombach et al., High-Resolution Image Synthesis with Latent Diffusion Models, 2022 (arXiv:2112.10752).
Command: python train.py --config=configs/latent_diffusion_shapes.py --workdir=runs/latent_diffusion_shapes
Result: not measured with 6,000 steps. After 1,500, Fréchet distance 4.9 for 1.07 GFLOP a sample, pixels take 3.17
  (seed 9401). Samples have sharp edges, but are blobs more often than shapes: the judge takes 0.47 of them for their
  class, one in three being chance.
Time: not measured; 1,500 steps took 7 minutes on a CPU core that other programs shared.
"""

from cvjax.config import experiment, variant

STEPS = 6000


def get_config(name: str = ""):
    """Returns the experiment, or a variant of it.

    "smoke" takes seconds. "vq" is on the codes of the first stage's variant "vq", in runs/kl_autoencoder_shapes-vq.
    "tokens" reads the class by cross-attention, as in the paper's model of ImageNet.
    """
    config = experiment(
        "generative.diffusion.latent",
        recipe=dict(
            classes=3,
            unet=dict(width=32, multipliers=(1, 2), blocks=1, attention=(8, 4), dropout=0.0),
            process=dict(schedule="scaled_linear"),
            sampling=dict(steps=25, eta=0.0),
            ema=0.998,
            optimiser=dict(
                name="adamw",
                learning_rate=1e-3,
                warmup=100,
                clip=1.0,
                schedule=dict(name="cosine_decay_schedule", decay_steps=STEPS - 100),
            ),
        ),
        borrow=dict(encoder="runs/kl_autoencoder_shapes/encoder", decoder="runs/kl_autoencoder_shapes/decoder"),
        data=dict(
            name="shapes/many",
            batch=32,
            eval_batch=200,
            eval_split="test[:400]",
            transforms=(dict(op="flip"), dict(op="random_quarter_turn")),
        ),
        judge="runs/classifier_shapes/classifier",
        judge_samples=400,
        steps=STEPS,
        log_every=100,
        eval_every=STEPS,
        figure_every=STEPS,
        checkpoint_every=1000,
        expect={"frechet_distance": ("<=", 15), "gflops_per_sample": ("<=", 1.5), "denoising_error": ("<=", 0.08)},
    )
    smoke = {
        "steps": 4,
        "recipe.unet.width": 8,
        "recipe.unet.attention": (4,),
        "recipe.process.steps": 8,
        "recipe.sampling.steps": 4,
        "data.name": "shapes/smoke_solid",
        "data.batch": 16,
        "data.eval_batch": 8,
        "data.eval_split": "test",
        "log_every": 1,
        "judge": "pixels",
        "judge_samples": 32,
    }
    vq = {f"borrow.{name}": f"runs/kl_autoencoder_shapes-vq/{name}" for name in ("encoder", "decoder")}
    return variant(config, name, smoke=smoke, vq=vq, tokens={"recipe.tokens": 64})
