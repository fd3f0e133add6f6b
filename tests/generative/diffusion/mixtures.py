"""Two Gaussians in the plane, whose moments and best denoisers are known, in each way that noise is parametrised."""

import jax
import jax.numpy as jnp
import numpy as np

MEANS, SHARES, DEVIATION = np.float32([[1.2, 0.4], [-0.6, -0.8]]), np.float32([0.3, 0.7]), 0.3
MEAN = SHARES @ MEANS
COVARIANCE = (MEANS - MEAN).T @ np.diag(SHARES) @ (MEANS - MEAN) + DEVIATION**2 * np.eye(2)


def draw(key, count):
    """Signals, and which of the two Gaussians they are of."""
    class_key, noise_key = jax.random.split(key)
    classes = jax.random.bernoulli(class_key, SHARES[1], (count,)).astype(int)
    return jnp.asarray(MEANS)[classes] + DEVIATION * jax.random.normal(noise_key, (count, 2)), classes


def log_shares(noisy, signal, sigma):
    """log p(class | signal * x_0 + sigma * noise)."""
    distances = jnp.square(noisy[:, None] - signal * MEANS).sum(axis=2)
    return jax.nn.log_softmax(np.log(SHARES) - distances / 2 / (signal**2 * DEVIATION**2 + sigma**2))


def best(noisy, signal, sigma):
    """E[x_0 | signal * x_0 + sigma * noise], by Bayes' rule in each Gaussian and between them."""
    gain = signal * DEVIATION**2 / (signal**2 * DEVIATION**2 + sigma**2)
    each = MEANS + gain * (noisy[:, None] - signal * MEANS)
    return (jnp.exp(log_shares(noisy, signal, sigma))[..., None] * each).sum(axis=1)


def denoiser(alpha_bars):
    """The best (x_t, t) -> (x_0, noise)."""
    levels = jnp.asarray(alpha_bars, jnp.float32)

    def denoise(noisy, step):
        signal, sigma = jnp.sqrt(levels[step]), jnp.sqrt(1 - levels[step])
        clean = best(noisy, signal, sigma)
        return clean, (noisy - signal * clean) / sigma

    return denoise


def by_sigma(noisy, sigma):
    """The best (x, sigma) -> x_0."""
    return best(noisy, 1.0, sigma)


def velocity(signals, time):
    """The best (x_t, t) -> dx / dt of straight paths: E[x_0 - noise | x_t]."""
    variance = time**2 * DEVIATION**2 + (1 - time) ** 2
    residuals = signals[:, None] - time * MEANS
    each = MEANS + (time * DEVIATION**2 - (1 - time)) / variance * residuals
    return (jnp.exp(log_shares(signals, time, 1 - time))[..., None] * each).sum(axis=1)
