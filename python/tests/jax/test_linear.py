"""`wtacrs.jax` against jax.grad.

What is random is tested in expectation: the mean of many draws lies within a few standard errors of the exact gradient,
and the same test finds the one biased design, top-k.
"""

import os
import re
import subprocess
import sys
import unittest

import jax
import jax.numpy as jnp
import numpy as np

import wtacrs.jax

TOKENS, IN, OUT, DRAWS = 96, 16, 12, 1500


def matrices(dtype=jnp.float32, shape=(TOKENS,)):
    generator = np.random.default_rng(5)
    # Rows of very different weight, as in training.
    h = generator.normal(size=(*shape, IN)) * np.exp(generator.normal(size=(*shape, 1)))
    w = generator.normal(size=(IN, OUT)) / 4
    return jnp.asarray(h, dtype), jnp.asarray(w, dtype)


def objective(z):
    z = z.astype(jnp.float32).reshape(-1, z.shape[-1])
    # Tokens whose gradients are of very different size.
    sizes = jnp.exp(2 * jnp.sin(jnp.arange(len(z)) * 0.9))
    return jnp.sum(sizes[:, None] * jnp.sin(z) * jnp.linspace(0.5, 2, z.shape[-1]))


def exact_gradients(h, w):
    return jax.grad(lambda h, w: objective(h @ w), argnums=(0, 1))(h, w)


def gradients(h, w, key, **options):
    return jax.grad(lambda h, w: objective(wtacrs.jax.linear(h, w, key, **options)), argnums=(0, 1))(h, w)


def relative(found, exact):
    found, exact = (np.asarray(x, np.float64) for x in (found, exact))
    return np.linalg.norm(found - exact) / np.linalg.norm(exact)


def many(h, w, draws=DRAWS, **options):
    """Gradients by w of many draws, one after another within one program."""
    step = wtacrs.jax.draws_of(h.shape[0], budget=options["budget"], design=options.get("design", "wta-pivotal"))
    keys = jnp.stack([wtacrs.jax.key(11, draw * step) for draw in range(draws)])
    return np.asarray(
        jax.jit(lambda keys: jax.lax.map(lambda key: gradients(h, w, key, **options)[1], keys))(keys), np.float64
    )


def standard_errors_apart(samples, exact):
    """How far the mean of samples lies from `exact` in all, in units of what chance alone makes of it (about 1)."""
    apart = ((samples.mean(0) - exact) ** 2).sum()
    return np.sqrt(apart / (samples.var(0, ddof=1).sum() / len(samples)))


class Estimates(unittest.TestCase):
    """Means, spreads, and what is held for the backward pass."""

    def test_a_whole_budget_is_exact(self):
        for dtype, bound in ((jnp.float32, 1e-6), (jnp.bfloat16, 1e-2)):
            h, w = matrices(dtype)
            z, kept = wtacrs.jax.linear_and_kept(h, w, wtacrs.jax.key(1), budget=1.0, bits="native")
            assert z.dtype == dtype and (z == h @ w).all()
            dh, dw = gradients(h, w, wtacrs.jax.key(1), budget=1.0, bits="native")
            exact_dh, exact_dw = exact_gradients(h, w)
            assert dw.dtype == dtype and relative(dw, exact_dw) < bound, relative(dw, exact_dw)
            assert dh.dtype == dtype and relative(dh, exact_dh) < 1e-6, "dh needs no estimate"

    def test_the_mean_is_the_exact_gradient(self):
        for dtype in (jnp.float32, jnp.bfloat16):
            h, w = matrices(dtype)
            exact = np.asarray(exact_gradients(h.astype(jnp.float32), w.astype(jnp.float32))[1], np.float64)
            for design in ("wta-pivotal", "wta-stratified", "wta-iid", "crs", "uniform"):
                samples = many(h, w, budget=0.3, bits="native", design=design)
                apart = standard_errors_apart(samples, exact)
                assert apart < 2.5, f"{design}, {dtype.__name__}: {apart:.2f} standard errors"
            for budget, bits in ((0.3, 4), (1.0, 2)):
                apart = standard_errors_apart(many(h, w, draws=500, budget=budget, bits=bits), exact)
                assert apart < 2.5, f"{budget}, {bits} bits, {dtype.__name__}: {apart:.2f} standard errors"

    def test_the_same_test_finds_a_bias(self):
        h, w = matrices()
        exact = np.asarray(exact_gradients(h, w)[1], np.float64)
        samples = many(h, w, draws=40, budget=0.3, bits="native", design="top-k")
        assert samples.var(0).max() == 0 and relative(samples[0], exact) > 0.05
        too_small = many(h, w, budget=0.3) / 1.1
        assert standard_errors_apart(too_small, exact) > 2.5

    def test_pivotal_is_below_crs(self):
        h, w = matrices()
        pivotal, crs = (many(h, w, budget=0.3, design=design).var(0).sum() for design in ("wta-pivotal", "crs"))
        assert pivotal < crs / 2, (pivotal, crs)

    def test_what_is_held_for_the_backward_pass(self):
        h, w = matrices(jnp.bfloat16, (8, 64))

        def held(function):
            leaves = jax.tree.leaves(jax.jit(lambda h, w: jax.vjp(function, h, w)[1])(h, w))
            return sorted(leaf.nbytes for leaf in leaves if leaf.size > 0 and leaf.shape != w.shape)

        exact = held(lambda h, w: h @ w)
        for budget, bits, by_hand in (
            (0.25, "native", 64 + 128 * 4 + 128 * 8 + 128 * IN * 2),
            (0.25, 4, 64 + 128 * 4 + 128 * 8 + 128 * 4 + 128 * IN // 2),
            (1.0, 4, 64 + 512 * 4 + 512 * IN // 2),
        ):
            kept = held(lambda h, w: wtacrs.jax.linear(h, w, wtacrs.jax.key(1), budget=budget, bits=bits))
            expected = wtacrs.jax.saved_bytes(8 * 64, IN, jnp.bfloat16, budget=budget, bits=bits)
            assert exact == [h.nbytes] and kept == [expected], (exact, kept)
            assert expected == by_hand, (expected, by_hand)

    def test_all_rows_packed(self):
        """Nothing is guessed: no norms come back, and a predictor stays as it is."""
        h, w = matrices()
        exact_dh, exact_dw = exact_gradients(h, w)
        state, unknown = wtacrs.jax.predictor(IN), jnp.full(TOKENS, -1, jnp.float32)

        def loss(h, w, norms, bits):
            z, kept = wtacrs.jax.linear_and_kept(
                h, w, wtacrs.jax.key(4), norms=norms, predictor=state, budget=1.0, bits=bits
            )
            return objective(z), kept

        for bits, bound in ((8, 0.01), (4, 0.15), (2, 0.7)):
            step = lambda h, w, norms: jax.grad(loss, argnums=(0, 1, 2), has_aux=True)(h, w, norms, bits)
            (dh, dw, norms), kept = jax.jit(step)(h, w, unknown)
            assert relative(dh, exact_dh) < 1e-6 and 0 < relative(dw, exact_dw) < bound, relative(dw, exact_dw)
            assert (norms == -1).all()
            assert (wtacrs.jax.learn(state, kept, norms) == state).all()
            assert (gradients(h, w, wtacrs.jax.key(4), budget=1.0, bits=bits)[1] == dw).all()
            assert (gradients(h, w, wtacrs.jax.key(5), budget=1.0, bits=bits)[1] != dw).any()

    def test_no_tokens(self):
        h, w = jnp.zeros((0, IN)), matrices()[1]
        dh, dw = gradients(h, w, wtacrs.jax.key(1), budget=0.3)
        assert dh.shape == (0, IN) and (dw == 0).all()


class Guesses(unittest.TestCase):
    """Norms and predictors that go from step to step."""

    def test_norms_come_back_and_help(self):
        h, w = matrices(shape=(4, TOKENS // 4))
        key = wtacrs.jax.key(9)
        unknown = jnp.full(h.shape[:-1], -1, jnp.float32)
        by_norms = lambda norms: jax.grad(lambda n: objective(wtacrs.jax.linear(h, w, key, norms=n)))(norms)
        norms = by_norms(unknown)
        dz = jax.grad(objective)(h @ w)
        assert norms.shape == unknown.shape and np.allclose(norms, jnp.linalg.norm(dz, axis=-1), rtol=1e-5)
        flat = h.reshape(-1, IN)
        variance = lambda norms: many(flat, w, budget=0.2, norms=norms, mix=0.0).var(0).sum()
        fresh, none = variance(norms.reshape(-1)), variance(unknown.reshape(-1))
        assert fresh < 0.7 * none, (fresh, none)

    def test_a_predictor_learns_in_a_scan(self):
        """Steps whose dZ grows with one feature of h: the taught predictor has less variance than an untaught one."""
        generator = np.random.default_rng(8)
        w = jnp.asarray(generator.normal(size=(IN, OUT)), jnp.float32)
        batches = jnp.asarray(generator.normal(size=(30, TOKENS, IN)), jnp.float32)
        steered = lambda z, h: jnp.sum(z * jnp.exp(h[:, :1]) * jnp.linspace(-1, 1, OUT))

        def loss(w, norms, state, h, key):
            z, kept = wtacrs.jax.linear_and_kept(h, w, key, norms=norms, predictor=state, budget=0.3)
            return steered(z, h), kept

        def step(carry, h):
            state, key = carry
            unknown = jnp.full(TOKENS, -1, jnp.float32)
            (_, norms), kept = jax.grad(loss, argnums=(0, 1), has_aux=True)(w, unknown, state, h, key)
            return (wtacrs.jax.learn(state, kept, norms), wtacrs.jax.advance(key, TOKENS)), norms

        cold = wtacrs.jax.predictor(IN)
        (taught, _), _ = jax.jit(lambda state: jax.lax.scan(step, (state, wtacrs.jax.key(2)), batches))(cold)
        assert taught.dtype == jnp.uint8 and taught.shape == cold.shape and (taught != cold).any()

        h = jnp.asarray(generator.normal(size=(TOKENS, IN)), jnp.float32)
        keys = jnp.stack([wtacrs.jax.key(4, draw * TOKENS) for draw in range(DRAWS)])
        exact = np.asarray(jax.grad(lambda w: steered(h @ w, h))(w), np.float64)
        spread = []
        for state in (cold, taught):
            sample = lambda key: jax.grad(lambda w: loss(w, jnp.full(TOKENS, -1, jnp.float32), state, h, key)[0])(w)
            samples = np.asarray(jax.jit(lambda keys: jax.lax.map(sample, keys))(keys), np.float64)
            assert standard_errors_apart(samples, exact) < 2.5
            spread.append(samples.var(0).sum())
        assert spread[1] < 0.5 * spread[0], spread

    def test_cached_norms_beside_the_predictor(self):
        h, w = matrices()
        key, state = wtacrs.jax.key(6), wtacrs.jax.predictor(IN, features=8, seed=1)
        norms = jnp.abs(jnp.linspace(0.5, 3, TOKENS))
        for step in range(3):
            loss = lambda n: (lambda z, kept: (objective(z), kept))(
                *wtacrs.jax.linear_and_kept(h, w, wtacrs.jax.advance(key, step * TOKENS), norms=n, predictor=state)
            )
            fresh, kept = jax.grad(loss, has_aux=True)(norms)
            alone, joined = wtacrs.jax.learn(state, kept, fresh), wtacrs.jax.learn(state, kept, fresh, norms)
            # Before the first step there is no guess that cached norms could be measured against.
            assert (alone != joined).any() == (step > 0), step
            state, norms = joined, fresh


class Transformations(unittest.TestCase):
    """What JAX's transformations make of a layer."""

    def test_jit_is_a_pure_function_of_the_key(self):
        h, w = matrices()
        step = jax.jit(lambda h, w, key: gradients(h, w, key, budget=0.2)[1])
        key = wtacrs.jax.key(3, (1 << 32) - 5)
        first = step(h, w, key)
        assert (first == step(h, w, key)).all() and (first == gradients(h, w, key, budget=0.2)[1]).all()
        moved = wtacrs.jax.advance(key, 7)
        assert (np.asarray(moved) == np.asarray(wtacrs.jax.key(3, (1 << 32) + 2))).all(), "carries into the high word"
        assert (first != step(h, w, moved)).any()
        assert (step(h, w, jax.random.key(0)) != step(h, w, jax.random.key(1))).any()

    def test_vmap_calls_one_after_another(self):
        h, w = matrices(shape=(3, TOKENS))
        keys = jnp.stack([wtacrs.jax.key(1, item * TOKENS) for item in range(3)])
        batched = jax.jit(jax.vmap(lambda h, key: gradients(h, w, key)[1]))(h, keys)
        for item in range(3):
            assert np.allclose(batched[item], gradients(h[item], w, keys[item])[1], rtol=1e-5, atol=1e-6)

    def test_checkpoint_draws_the_same_again(self):
        h, w = matrices()
        loss = lambda w: objective(jax.checkpoint(lambda h, w: wtacrs.jax.linear(h, w, wtacrs.jax.key(8)))(h, w))
        assert (jax.grad(loss)(w) == gradients(h, w, wtacrs.jax.key(8))[1]).all()

    def test_shards_draw_with_keys_of_their_own(self):
        mesh = jax.make_mesh((2,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
        rows, everywhere = jax.sharding.PartitionSpec("data"), jax.sharding.PartitionSpec()
        h, w = matrices(shape=(2 * TOKENS,))

        def shard(h, w, key):
            mine = wtacrs.jax.advance(key, TOKENS)
            mine = jnp.where(jax.lax.axis_index("data") == 0, key, mine)
            return jax.lax.psum(gradients(h, w, mine)[1], "data")

        key = wtacrs.jax.key(5)
        mapped = jax.shard_map(
            shard, mesh=mesh, in_specs=(rows, everywhere, everywhere), out_specs=everywhere, check_vma=False
        )
        by_hand = gradients(h[:TOKENS], w, key)[1] + gradients(h[TOKENS:], w, wtacrs.jax.advance(key, TOKENS))[1]
        assert np.allclose(jax.jit(mapped)(h, w, key), by_hand, rtol=1e-5, atol=1e-5)

    def test_inference_chooses_no_rows(self):
        h, w = matrices()
        h = h.at[5, 3].set(jnp.nan)
        linear = lambda h: wtacrs.jax.linear(h, w, wtacrs.jax.key(1))
        for call in (linear, jax.jit(linear)):
            z = call(h)
            assert jnp.isnan(z[5]).all() and (z.at[5].set(0) == (h @ w).at[5].set(0)).all()
        assert "wtacrs_jax_forward" not in str(jax.make_jaxpr(linear)(h))


class Refusals(unittest.TestCase):
    def check_refused(self, error, words, call):
        with self.assertRaisesRegex(error, re.escape(words)):
            jax.block_until_ready(call())

    def test_what_is_refused(self):
        h, w = matrices()
        key = wtacrs.jax.key(1)
        linear = lambda h, **options: wtacrs.jax.linear(h, w, key, **options)
        grad = jax.grad(lambda w, h: objective(wtacrs.jax.linear(h, w, key)))
        self.check_refused(
            jax.errors.JaxRuntimeError, "input norm 5 is NaN", lambda: jax.jit(grad)(w, h.at[5, 3].set(jnp.nan))
        )
        bad = jnp.full(TOKENS, 1.0).at[7].set(jnp.inf)
        self.check_refused(
            jax.errors.JaxRuntimeError,
            "7 is inf",
            lambda: jax.grad(lambda w: objective(wtacrs.jax.linear(h, w, key, norms=bad)))(w),
        )
        self.check_refused(wtacrs.jax.Error, "budget", lambda: linear(h, budget=97))
        self.check_refused(wtacrs.jax.Error, "budget", lambda: linear(h, budget=1.5))
        self.check_refused(ValueError, "at least one", lambda: linear(h, budget=0))
        self.check_refused(ValueError, "write 1.0", lambda: linear(h, budget=1))
        self.check_refused(ValueError, "'pivotal'", lambda: linear(h, design="pivotal"))
        self.check_refused(ValueError, "bits is 3: it must be one of 'native', 8, 4, 2", lambda: linear(h, bits=3))
        self.check_refused(TypeError, "int32", lambda: linear(h.astype(jnp.int32)))
        self.check_refused(TypeError, "norms is float32[3]", lambda: linear(h, norms=jnp.zeros(3)))
        self.check_refused(TypeError, "the key is", lambda: wtacrs.jax.linear(h, w, jnp.zeros(2)))
        broken = wtacrs.jax.predictor(IN).at[100].add(1)
        by_state = lambda state: jax.grad(lambda w: objective(wtacrs.jax.linear(h, w, key, predictor=state)))(w)
        self.check_refused(jax.errors.JaxRuntimeError, "wtacrs_norm_predictor_load", lambda: by_state(broken))
        self.check_refused(
            jax.errors.JaxRuntimeError, "17 input features", lambda: by_state(wtacrs.jax.predictor(IN + 1))
        )
        self.check_refused(TypeError, "custom_vjp", lambda: jax.jvp(lambda w: wtacrs.jax.linear(h, w, key), (w,), (w,)))
        # An estimate's gradient has no gradient by w.
        second = jax.grad(lambda w: jnp.sum(grad(w, h) ** 2))
        self.check_refused(Exception, "differentiat", lambda: second(w))

    def test_an_import_without_the_handlers_names_the_variable(self):
        run = subprocess.run(
            [sys.executable, "-c", "import wtacrs.jax"],
            env=os.environ
            | {"WTACRS_JAX_LIBRARY": "/nowhere/libwtacrs_jax.so", "PYTHONPATH": os.pathsep.join(sys.path)},
            capture_output=True,
            text=True,
        )
        last = run.stderr.strip().splitlines()[-1]
        self.assertRegex(last, "^ImportError: .*/nowhere/libwtacrs_jax.so.*WTACRS_JAX_LIBRARY")


if __name__ == "__main__":
    unittest.main()
