"""Optimisers against torch's and against NumPy, and the messages for what is wrong in a dict."""

import inspect
import itertools
import json
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from cvjax import optim
from cvjax.core import descend
from cvjax.errors import UserError

STEPS = 12
COSINE = dict(name="cosine_decay_schedule", decay_steps=8, alpha=0.1)


def quadratic(key=0):
    """A random quadratic 0.5 (x - c)' H (x - c) over a kernel and a bias, and its start."""
    random = np.random.default_rng(key)
    root = random.normal(size=(8, 8)) / 2
    centre = random.normal(size=8)
    start = {"dense": {"kernel": random.normal(size=(2, 3)), "bias": random.normal(size=2)}}
    return (root @ root.T + np.eye(8)).astype(np.float32), centre.astype(np.float32), jax.tree.map(np.float32, start)


def gradient(params, hessian, centre):
    """Of the quadratic, in NumPy: kernel and bias."""
    flat = np.concatenate([np.ravel(params["dense"]["kernel"]), params["dense"]["bias"]])
    flat = hessian @ (flat - centre)
    return {"dense": {"kernel": flat[:6].reshape(2, 3), "bias": flat[6:]}}


def run(config, steps=STEPS, key=0):
    """Parameters after each step of `build(config)` down the quadratic."""
    hessian, centre, params = quadratic(key)
    tx = optim.build(config)

    def loss(params):
        flat = jnp.concatenate([params["dense"]["kernel"].ravel(), params["dense"]["bias"]]) - centre
        return 0.5 * flat @ hessian @ flat, None

    step = jax.jit(lambda params, state: descend(tx, loss, params, state)[:2])
    params = jax.tree.map(jnp.asarray, params)
    state = tx.init(params)
    path = []
    for _ in range(steps):
        params, state = step(params, state)
        path.append(jax.tree.map(np.asarray, params))
    return path


def assert_same(path, expected, tolerance=2e-6):
    """Float32 rounding over a dozen steps of numbers around 1 stays below the tolerance."""
    for ours, theirs in zip(path, expected, strict=True):
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=tolerance), ours, theirs)


TORCH = {
    "adam": (dict(name="adam", learning_rate=0.05, b1=0.5), "Adam", dict(lr=0.05, betas=(0.5, 0.999)), {}),
    "adam, L2": (
        dict(name="adam", learning_rate=0.05, weight_decay=0.1),
        "Adam",
        dict(lr=0.05),
        dict(kernel=0.1, bias=0),
    ),
    "adamw, kernels": (
        dict(name="adamw", learning_rate=0.05, weight_decay=0.1),
        "AdamW",
        dict(lr=0.05),
        dict(kernel=0.1, bias=0),
    ),
    "adamw, all": (
        dict(name="adamw", learning_rate=0.05, weight_decay=0.1, decay_mask="all"),
        "AdamW",
        dict(lr=0.05),
        dict(kernel=0.1, bias=0.1),
    ),
    "sgd, nesterov, L2": (
        dict(name="sgd", learning_rate=0.02, momentum=0.9, nesterov=True, weight_decay=0.1, decay_mask=["bias"]),
        "SGD",
        dict(lr=0.02, momentum=0.9, nesterov=True),
        dict(kernel=0, bias=0.1),
    ),
    # optax puts epsilon under the root unless told otherwise, and forgets with 0.9 where torch has 0.99
    "rmsprop": (
        dict(name="rmsprop", learning_rate=0.02, decay=0.99, eps=1e-3, eps_in_sqrt=False, momentum=0.5),
        "RMSprop",
        dict(lr=0.02, alpha=0.99, eps=1e-3, momentum=0.5),
        {},
    ),
    "clipped": (dict(name="sgd", learning_rate=0.3, clip=0.7), "SGD", dict(lr=0.3), {}),
}


@pytest.mark.parity
@pytest.mark.parametrize("case", TORCH)
def test_equals_torch(case):
    torch = pytest.importorskip("torch")
    config, name, options, decays = TORCH[case]
    hessian, centre, start = quadratic()
    kernel, bias = (torch.tensor(start["dense"][n].copy(), requires_grad=True) for n in ("kernel", "bias"))
    groups = [dict(params=[p], weight_decay=decays.get(n, 0)) for n, p in (("kernel", kernel), ("bias", bias))]
    optimiser = getattr(torch.optim, name)(groups, **options)
    expected = []
    for _ in range(STEPS):
        optimiser.zero_grad()
        flat = torch.cat([kernel.ravel(), bias]) - torch.tensor(centre)
        (0.5 * flat @ torch.tensor(hessian) @ flat).backward()
        if "clip" in config:
            torch.nn.utils.clip_grad_norm_([kernel, bias], config["clip"])
        optimiser.step()
        expected.append({"dense": {"kernel": kernel.detach().numpy().copy(), "bias": bias.detach().numpy().copy()}})
    assert_same(run(config), expected, tolerance=5e-6)


def test_chain_is_what_the_docstring_says():
    """Mean gradient of 3 steps, value clip, norm clip, L2 on kernels, rate with warm-up and cosine, multipliers."""
    config = dict(name="sgd", learning_rate=0.2, schedule=COSINE, warmup=2, clip_value=0.8, clip=1.1)
    config |= dict(weight_decay=0.3, accumulate=3, multipliers={"dense/bias": 0.25})
    steps = 18  # six updates: two of warm-up, four of the cosine
    hessian, centre, params = quadratic()
    expected, gathered = [], []
    for step in range(steps):
        gathered.append(gradient(params, hessian, centre))
        if len(gathered) == 3:
            mean = jax.tree.map(lambda *g: np.clip(np.mean(g, axis=0), -0.8, 0.8), *gathered)["dense"]
            norm = np.sqrt(sum(np.sum(g**2) for g in mean.values()))
            update = {n: g * min(1, 1.1 / norm) for n, g in mean.items()}
            update["kernel"] = update["kernel"] + 0.3 * params["dense"]["kernel"]
            count = step // 3
            cosine = 0.1 + 0.9 * 0.5 * (1 + np.cos(np.pi * (count - 2) / 8))
            rate = 0.2 * (count / 2 if count < 2 else cosine)
            factor = {"kernel": 1, "bias": 0.25}
            params = {"dense": {n: params["dense"][n] - rate * factor[n] * update[n] for n in factor}}
            gathered = []
        expected.append(params)
    assert_same(run(config, steps), expected)
    biases = [params["dense"]["bias"] for params in expected]
    moved = [not np.array_equal(a, b) for a, b in itertools.pairwise(biases)]
    assert moved == [False] * 4 + [True] + [False, False, True] * 4  # the first update has rate 0


@pytest.mark.parametrize(
    ("config", "rates"),
    [
        (dict(learning_rate=0.2), [0.2, 0.2, 0.2, 0.2]),
        (dict(learning_rate=0.2, warmup=2), [0, 0.1, 0.2, 0.2]),
        (dict(learning_rate=0.2, schedule=dict(name="exponential_decay", transition_steps=1, decay_rate=0.5)), None),
        (dict(learning_rate=0.2, accumulate=2,
              schedule=dict(name="linear_schedule", end_value=0.0, transition_steps=4)), [0.2, 0.2, 0.15, 0.15]),
        (dict(learning_rate=0.3, schedule=dict(name="piecewise_constant_schedule", boundaries_and_scales={"2": 0.1})),
         [0.3, 0.3, 0.03, 0.03]),
        (dict(learning_rate=0.2, schedule=dict(name="join_schedules", boundaries=[2], schedules=[
            dict(name="constant_schedule"), dict(name="constant_schedule", value=0.01)])), [0.2, 0.2, 0.01, 0.01]),
        (dict(learning_rate=1.0, schedule=dict(
            name="warmup_cosine_decay_schedule", init_value=0.0, warmup_steps=2, decay_steps=4)), [0, 0.5, 1, 0.5]),
        (dict(schedule=dict(name="constant_schedule", value=0.4)), [0.4] * 4),
    ],
)  # fmt: skip
def test_learning_rate(config, rates):
    """What is logged is what is applied, and both are the schedule's formula."""
    rates = rates or [0.2 * 0.5**n for n in range(4)]
    config = dict(name="sgd", **config)
    logged = [float(optim.learning_rate(config, step)) for step in range(4)]
    np.testing.assert_allclose(logged, rates, rtol=1e-6)
    hessian, centre, start = quadratic()
    path = [start, *run({**config, "accumulate": None}, 4)]
    every = config.get("accumulate", 1)
    for count in range(4 // every):
        before, after = path[count]["dense"]["bias"], path[count + 1]["dense"]["bias"]
        slope = gradient(path[count], hessian, centre)["dense"]["bias"]
        np.testing.assert_allclose((before - after) / slope, rates[count * every], atol=2e-5)
    assert float(jax.jit(lambda s: optim.learning_rate(config, s))(jnp.int32(3))) == pytest.approx(rates[3])


@pytest.mark.parametrize("name", optim.optimisers())
def test_every_optimiser_steps_under_jit_with_donated_state(name):
    needs_more = {"dpsgd", "lbfgs", "momo", "momo_adam", "polyak_sgd", "sophia"}
    required = dict(l2_norm_clip=1.0, noise_multiplier=0.1, seed=0) if name == "dpsgd" else {}
    first = next(iter(inspect.signature(optim.optimisers()[name]).parameters.values()))
    rate = {} if isinstance(first.default, float) else dict(learning_rate=0.01)
    config = dict(name=name, clip=1.0, **rate, **required)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # optax announces its next versions
        try:
            tx = optim.build(config)
        except UserError as error:
            assert name in needs_more
            assert "needs more arguments per step than descend passes" in str(error)
            return
        params = {"kernel": jnp.ones((2, 3)), "bias": jnp.ones(3)}
        state = jax.jit(tx.init)(params)
        step = jax.jit(
            lambda p, s: descend(tx, lambda q: (optax.tree.norm(q, squared=True), None), p, s)[:3],
            donate_argnums=(0, 1),
        )
        for _ in range(3):
            params, state, loss = step(params, state)
    assert np.isfinite(loss) and optax.tree.norm(params, squared=True) < 9  # 9 at the start


def test_every_schedule_is_found():
    assert {"constant_schedule", "exponential_decay", "join_schedules", "sgdr_schedule"} < set(optim.schedules())
    assert not {"inject_hyperparams", "adam"} & set(optim.schedules())
    restarts = [dict(init_value=0.0, peak_value=p, warmup_steps=1, decay_steps=3) for p in (0.4, 0.2)]
    config = dict(name="sgd", schedule=dict(name="sgdr_schedule", cosine_kwargs=restarts))
    rates = [float(optim.learning_rate(config, step)) for step in range(6)]
    np.testing.assert_allclose(rates, [0, 0.4, 0.2, 0, 0.2, 0.1], atol=1e-6)


def test_multipliers_scale_the_parts_of_a_network():
    params = {"mapping": {"kernel": jnp.ones(2), "bias": jnp.ones(2)}, "mapping_out": {"kernel": jnp.ones(2)}}
    tx = optim.build(dict(name="adam", learning_rate=0.1, multipliers={"mapping": 0.01, "mapping/bias": 0.0}))
    updates, _ = tx.update(params, tx.init(params), params)
    np.testing.assert_allclose(updates["mapping"]["kernel"], -0.001, rtol=1e-4)  # Adam's first step has length rate
    np.testing.assert_array_equal(updates["mapping"]["bias"], 0)
    np.testing.assert_allclose(updates["mapping_out"]["kernel"], -0.1, rtol=1e-4)


def test_dict_survives_the_json_of_a_run():
    config = dict(name="prodigy", learning_rate=1.0, betas=(0.8, 0.9))
    config["schedule"] = dict(name="piecewise_constant_schedule", boundaries_and_scales={3: 0.5})
    back = json.loads(json.dumps(config))
    assert_same(run(config, 5), run(back, 5), tolerance=0)


@pytest.mark.parametrize(
    ("config", "words"),
    [
        (dict(), ["name=None", "adam"]),
        (dict(name="rmsporp", learning_rate=1e-3), ["'rmsporp'", "Did you mean 'rmsprop'?"]),
        (dict(name="adam"), ["'adam'", "'learning_rate'"]),
        (dict(name="adam", learning_rate="fast"), ["learning_rate='fast'", "float at least 0"]),
        (dict(name="adam", learning_rate=-1.0), ["learning_rate=-1.0", "at least 0"]),
        (dict(name="adam", learning_rate=1e-3, beta1=0.5), ["'beta1'", "Did you mean 'b1'?"]),
        (dict(name="adam", learning_rate=1e-3, b1="0.5"), ["b1='0.5'", "expected float"]),
        (dict(name="adam", learning_rate=1e-3, b1=True), ["b1=True", "expected float"]),
        (dict(name="sgd", learning_rate=1e-3, nesterov=1), ["nesterov=1", "bool"]),
        (dict(name="adam", learning_rate=1e-3, warmup=0.5), ["warmup=0.5", "int at least 0"]),
        (dict(name="adam", learning_rate=1e-3, accumulate=0), ["accumulate=0", "at least 1"]),
        (dict(name="adam", learning_rate=1e-3, clip=0), ["clip=0", "above 0"]),
        (dict(name="adam", learning_rate=1e-3, decay_mask="kernel"), ["decay_mask='kernel'", "kernels, all"]),
        (dict(name="adam", learning_rate=1e-3, schedule="cosine"), ["schedule='cosine'", "Mapping"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(name="cosine_decay")), ["'cosine_decay_schedule'?"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(name="cosine_decay_schedule")), ["'decay_steps'"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(COSINE, decay_stpes=3)), ["Did you mean 'decay_steps'?"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(COSINE, decay_steps=3.5)), ["decay_steps=3.5", "int"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(COSINE, decay_steps=-3)), ["decay", "positive"]),
        (dict(name="adam", learning_rate=1e-3, schedule=dict(COSINE, init_value=1.0)), ["leave out learning_rate"]),
        (dict(name="prodigy", learning_rate=1e-3, weight_decay=0.1), ["decay_mask='all'"]),
        (dict(name="adadelta"), ["'adadelta'", "'learning_rate'"]),
        (dict(name="sophia", learning_rate=1e-3), ["'sophia'", "descend"]),
        (dict(name="dpsgd", learning_rate=1e-3, l2_norm_clip=1.0, noise_multiplier=0.1, seed=0), ["descend"]),
        (dict(name="muon", learning_rate=1e-3, preconditioning="aloe"), ["preconditioning"]),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore:.*seed:DeprecationWarning")
def test_mistakes_are_explained(config, words):
    with pytest.raises(UserError) as error:
        optim.build(config)
    assert all(word in str(error.value) for word in words), error.value


def test_paths_that_match_no_parameter_are_explained():
    _, _, params = quadratic()
    with pytest.raises(UserError, match=r"below 'dens'.*Did you mean 'dense'"):
        optim.build(dict(name="sgd", learning_rate=0.1, multipliers={"dens": 0.1})).init(params)
    with pytest.raises(UserError, match=r"selects no parameter.*kernel"):
        optim.build(dict(name="adamw", learning_rate=0.1, weight_decay=0.1, decay_mask=["kernl"])).init(params)


def test_learning_rate_of_an_optimiser_with_a_default():
    assert optim.learning_rate(dict(name="prodigy"), 0) == 1.0
    assert optim.learning_rate(dict(name="prodigy", warmup=4), 1) == 0.25
