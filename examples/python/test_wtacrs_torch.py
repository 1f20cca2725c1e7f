"""Tests of wtacrs_torch on the CPU; about half a minute.

    WTACRS_LIBRARY=PREFIX/lib/libwtacrs.so python test_wtacrs_torch.py
"""

import copy
import gc
import math
import unittest

import torch
import wtacrs_torch
from torch import nn
from wtacrs_torch import Error, SampledLinear, SavedBytes, convert

TOKENS, INPUTS, OUTPUTS = 240, 32, 24
# A mean of so many draws is this many standard errors from the truth about once in 10^6 tests.
DEVIATIONS = 5


def uneven(*shape, seed=0):
    """Rows of very different lengths, as activations have them."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.randn(*shape[:-1], 1, generator=generator).exp()
    return torch.randn(*shape, generator=generator) * scales


def linear(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Linear(INPUTS, OUTPUTS, **options)


def wrap(layer):
    return nn.Sequential(layer)


def gradients(model, loss):
    model.zero_grad()
    loss().backward()
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def unbiased(test, draw, exact, draws=300):
    """The mean of draws is within a few standard errors of `exact`: in total, and along a fixed direction."""
    exact = exact.double()
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = torch.stack([draw().double() - exact for _ in range(draws)])
    along = (errors * direction).flatten(1).sum(1)
    test.assertGreater(along.std(), 0, "nothing was drawn")
    test.assertLess(abs(along.mean()), DEVIATIONS * along.std() / math.sqrt(draws))
    # The squared length of a mean of independent errors is, on average, that of one over their number.
    mean_square = errors.flatten(1).square().sum(1).mean() / draws
    test.assertLess(errors.mean(0).square().sum(), 3 * mean_square)


class Attention(nn.Module):
    """Q, K and V as BERT has them, without the softmax."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(INPUTS, OUTPUTS) for _ in range(3))

    def forward(self, h):
        return (self.query(h) * self.key(h).sin() + self.value(h).square()).sum()


class Estimates(unittest.TestCase):
    def check_unbiased(self, source, design, batch=None):
        h, target = uneven(TOKENS, INPUTS), uneven(TOKENS, OUTPUTS, seed=2)
        model = wrap(linear())
        loss = lambda: (model(h).sin() * target).sum()
        exact = gradients(model, loss)
        sampling = convert(model, 0.3, design, source, seed=7)

        def draw():
            with sampling.batch(*batch) if batch else torch.enable_grad():
                weight, bias = gradients(model, loss)
            torch.testing.assert_close(bias, exact[1], rtol=1e-4, atol=1e-4)
            return weight

        unbiased(self, draw, exact[0])

    def test_every_source_and_unbiased_design(self):
        mask = torch.ones(12, TOKENS // 12, dtype=torch.bool)
        for design in ("uniform", "crs", "wta-iid", "wta-stratified", "wta-pivotal"):
            with self.subTest(design=design):
                self.check_unbiased("input", design)
        self.check_unbiased("predicted", "wta-pivotal")
        self.check_unbiased("cached", "wta-pivotal", (range(12), mask))

    def test_the_check_sees_bias(self):
        with self.assertRaises(AssertionError):
            self.check_unbiased("input", "top-k")

    def test_a_budget_of_all_is_exact(self):
        h = uneven(4, TOKENS // 4, INPUTS).requires_grad_()
        for dtype in (torch.float32, torch.float64):
            given = h.detach().to(dtype).requires_grad_()
            model = wrap(linear()).to(dtype)
            loss = lambda: model(given).cos().square().sum()
            exact, exact_h = gradients(model, loss), given.grad
            for source in ("input", "predicted"):
                given.grad = None
                sampling = convert(model, 1.0, source=source)
                torch.testing.assert_close(gradients(model, loss), exact)
                torch.testing.assert_close(given.grad, exact_h)
                sampling.revert()

    def test_the_gradient_of_the_input_is_exact(self):
        h = uneven(TOKENS, INPUTS).requires_grad_()
        model = wrap(linear())
        gradients(model, lambda: model(h).sin().sum())
        exact, h.grad = h.grad, None
        convert(model, 0.1)
        gradients(model, lambda: model(h).sin().sum())
        self.assertTrue(torch.equal(h.grad, exact))

    def test_the_predictor_lessens_the_error(self):
        generator = torch.Generator().manual_seed(3)
        h = torch.nn.functional.normalize(torch.randn(TOKENS, INPUTS, generator=generator), dim=1)
        # The gradient's size depends on h alone, so it can be learned.
        dz = (6 * h[:, :1]).exp() * torch.randn(TOKENS, OUTPUTS, generator=generator)
        model = wrap(linear())
        error = {}
        for source in ("input", "predicted"):
            exact = h.T @ dz
            sampling = convert(model, 0.2, source=source, seed=1)
            draws = [gradients(model, lambda: (model(h) * dz).sum())[0].T for _ in range(60)]
            error[source] = sum((d - exact).norm() for d in draws[30:]) / 30
            sampling.revert()
        self.assertLess(error["predicted"], 0.6 * error["input"])

    def test_gradients_accumulate(self):
        halves = uneven(TOKENS, INPUTS).chunk(2)
        model = wrap(linear())
        loss = lambda: sum(model(half).sin().sum() for half in halves)
        exact = gradients(model, loss)[0]
        convert(model, 0.3, seed=3)

        def draw():
            model.zero_grad()
            for half in halves:
                model(half).sin().sum().backward()
            return model[0].weight.grad.clone()

        unbiased(self, draw, exact, draws=200)
        # Two forward passes of one H before a backward pass, too.
        exact = gradients(model.eval(), lambda: 2 * model(halves[0]).sin().sum())[0]
        model.train()
        both = lambda: model(halves[0]).sin().sum() + model(halves[0]).sin().sum()
        unbiased(self, lambda: gradients(model, both)[0], exact, draws=200)


class SharedInput(unittest.TestCase):
    def test_one_block_one_predictor_and_no_bias(self):
        h = uneven(TOKENS, INPUTS)
        model = Attention()
        exact = gradients(model, lambda: model(h))
        sampling = convert(model, 0.3, seed=5)
        with SavedBytes(model) as saved:
            loss = model(h)
        rows = round(0.3 * TOKENS)
        self.assertLess(abs(saved.linear - rows * (INPUTS * 4 + 12)), 4 * 64)
        loss.backward()
        self.assertEqual(list(sampling.guesses), ["query"])
        for layer in range(3):
            unbiased(self, lambda: gradients(model, lambda: model(h))[2 * layer], exact[2 * layer], draws=150)

    def test_another_tensor_or_a_changed_one_is_read_anew(self):
        model = Attention()
        sampling = convert(model, 0.3)
        h = uneven(TOKENS, INPUTS)
        model.query(h)
        one = sampling.offset
        model.key(h)
        self.assertEqual(sampling.offset, one)
        h.mul_(2)
        model.value(h)
        self.assertEqual(sampling.offset, 2 * one)
        model.value(h.clone())
        self.assertEqual(sampling.offset, 3 * one)

    def test_the_joint_norms_teach(self):
        h = uneven(TOKENS, INPUTS)
        model = Attention()
        sampling = convert(model, 0.3, source="cached")
        with sampling.batch(range(TOKENS)):
            model(h).backward()
        cache = sampling.guesses["query"]
        batch = wtacrs_torch.batch.Batch(range(TOKENS))
        model.eval()
        z = [layer(h).detach().requires_grad_() for layer in (model.query, model.key, model.value)]
        (z[0] * z[1].sin() + z[2].square()).sum().backward()
        joint = torch.cat([part.grad for part in z], 1).norm(dim=1)
        torch.testing.assert_close(cache.prior(batch, TOKENS, h.device), joint, rtol=1e-4, atol=1e-5)

    def test_a_selection_serves_one_step_only(self):
        h = uneven(TOKENS, INPUTS)
        model = wrap(linear())
        sampling = convert(model, 0.3)
        seen = {tuple(gradients(model, lambda: model(h).sum())[0].flatten().tolist()) for _ in range(5)}
        self.assertEqual(len(seen), 5)
        self.assertEqual(len(sampling.guesses), 1)


class Cases(unittest.TestCase):
    def setUp(self):
        self.h = uneven(TOKENS, INPUTS)
        self.model = wrap(linear())
        self.sampling = convert(self.model, 0.3)

    def test_eval_and_no_grad_draw_nothing_and_are_exact(self):
        self.model.eval()
        weight = gradients(self.model, lambda: self.model(self.h).sin().sum())[0]
        self.sampling.revert()
        exact = gradients(self.model, lambda: self.model(self.h).sin().sum())[0]
        self.assertTrue(torch.equal(weight, exact))
        sampling = convert(self.model.train(), 0.3)
        with torch.no_grad():
            self.model(self.h)
        with torch.inference_mode():
            self.model(self.h)
        self.assertEqual((sampling.offset, sampling.guesses), (0, {}))

    def test_frozen_weights_save_nothing(self):
        h = self.h.clone().requires_grad_()
        self.model[0].weight.requires_grad_(False)
        with SavedBytes(self.model) as saved:
            z = self.model(h)
        self.assertEqual((saved.total, self.sampling.offset), (0, 0))
        z.sum().backward()
        torch.testing.assert_close(h.grad, self.model[0].weight.sum(0).expand_as(h))
        torch.testing.assert_close(self.model[0].bias.grad, torch.full((OUTPUTS,), float(TOKENS)))

    def test_frozen_bias_no_bias_and_a_first_layer(self):
        self.model[0].bias.requires_grad_(False)
        weight, bias = gradients(self.model, lambda: self.model(self.h).sum())
        self.assertIsNone(bias)
        self.assertIsNotNone(weight)
        model = wrap(linear(bias=False))
        convert(model, 1.0)
        torch.testing.assert_close(
            gradients(model, lambda: model(self.h).sum())[0], self.h.sum(0).expand(OUTPUTS, -1), rtol=1e-4, atol=1e-4
        )

    def test_strides(self):
        """An input that is transposed, and gradients that are expanded or transposed."""
        wide = uneven(INPUTS, 8, TOKENS // 8).permute(2, 1, 0)
        for loss in (lambda z: z.sum(), lambda z: z.transpose(0, 2).contiguous().sin().sum()):
            self.sampling.revert()
            exact = gradients(self.model, lambda: loss(self.model(wide)))
            self.sampling = convert(self.model, 1.0)
            torch.testing.assert_close(gradients(self.model, lambda: loss(self.model(wide))), exact, rtol=1e-5, atol=1e-4)

    def test_no_tokens_one_token_and_one_axis(self):
        self.assertEqual(self.model(torch.empty(0, INPUTS)).shape, (0, OUTPUTS))
        weight = gradients(self.model, lambda: self.model(torch.empty(3, 0, INPUTS)).sum())[0]
        self.assertFalse(weight.any())
        for one in (self.h[:1], self.h[0]):
            weight = gradients(self.model, lambda: self.model(one).sum())[0]
            torch.testing.assert_close(weight, self.h[0].expand(OUTPUTS, -1))

    def test_retained_graphs_and_second_derivatives_are_refused(self):
        loss = self.model(self.h).sin().sum()
        loss.backward(retain_graph=True)
        with self.assertRaisesRegex(Error, "second backward pass"):
            loss.backward()
        h = self.h.clone().requires_grad_()
        loss = self.model(h).sin().sum()
        (first,) = torch.autograd.grad(loss, h, create_graph=True)
        with self.assertRaisesRegex(RuntimeError, "once_differentiable"):
            first.square().sum().backward()

    def test_autocast(self):
        self.sampling.revert()
        loss = lambda: self.model(self.h).float().sin().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            exact = gradients(self.model, loss)[0]
            sampling = convert(self.model, 0.3, seed=2)
            with SavedBytes(self.model) as saved:
                self.assertIs(self.model(self.h).dtype, torch.bfloat16)
            self.assertLess(abs(saved.linear - 72 * (INPUTS * 2 + 12)), 4 * 64)
            draws = [gradients(self.model, loss)[0] for _ in range(300)]
            self.assertIs(draws[0].dtype, torch.float32)
            unbiased(self, iter(draws).__next__, exact)
            # Q, K and V share, though each has a cast of its own.
            model = Attention()
            sampling = convert(model, 0.3)
            model(self.h).backward()
            self.assertEqual(list(sampling.guesses), ["query"])

    def test_half_precision_parameters(self):
        for dtype in (torch.bfloat16, torch.float16):
            model, h = wrap(linear()).to(dtype), self.h.to(dtype)
            loss = lambda: model(h).float().sin().sum()
            exact = gradients(model, loss)
            convert(model, 1.0)
            for found, right in zip(gradients(model, loss), exact):
                self.assertIs(found.dtype, dtype)
                torch.testing.assert_close(found, right, rtol=0.02, atol=0.1)

    def test_torchs_own_errors(self):
        with self.assertRaisesRegex(RuntimeError, "dtype"):
            self.model(self.h.double())
        with self.assertRaisesRegex(RuntimeError, "shapes"):
            self.model(torch.ones(5, INPUTS + 1))

    def test_overflown_gradients_teach_nothing(self):
        z = self.model(self.h)
        z.backward(torch.full_like(z, math.inf))
        self.assertFalse(torch.isfinite(self.model[0].weight.grad).any())
        gradients(self.model, lambda: self.model(self.h).sum())

    def test_an_activation_that_is_not_finite_is_named(self):
        self.h[17, 3] = math.nan
        with self.assertRaisesRegex(Error, "17"):
            self.model(self.h)

    def test_checkpointing(self):
        from torch.utils.checkpoint import checkpoint

        model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(OUTPUTS, OUTPUTS))
        for reentrant in (False, True):
            h = self.h.clone().requires_grad_()
            exact = gradients(model, lambda: model(h).sin().sum())[0]
            sampling = convert(model, 0.3, seed=4)
            draw = lambda: gradients(model, lambda: checkpoint(model, h, use_reentrant=reentrant).sin().sum())[0]
            unbiased(self, draw, exact, draws=150)
            sampling.revert()


class Conversion(unittest.TestCase):
    def model(self):
        torch.manual_seed(0)
        return nn.ModuleDict({"a": nn.Linear(8, 8), "b": nn.Linear(8, 8), "attention": nn.MultiheadAttention(8, 2)})

    def test_what_is_converted(self):
        model = self.model()
        parameters = {name: id(p) for name, p in model.named_parameters()}
        state = copy.deepcopy(model.state_dict())
        convert(model, 0.3, skip=["b"])
        kinds = {name: type(m) for name, m in model.named_modules()}
        self.assertIs(kinds["a"], SampledLinear)
        self.assertIs(kinds["b"], nn.Linear)
        # A subclass of nn.Linear, whose weight torch reads directly.
        self.assertIsNot(kinds["attention.out_proj"], SampledLinear)
        self.assertEqual({name: id(p) for name, p in model.named_parameters()}, parameters)
        model.load_state_dict(state, strict=True)
        self.assertEqual(list(model.state_dict()), list(state))

    def test_bad_options_are_named(self):
        for options, words in [
            ({"budget": 0}, "budget of 0"),
            ({"budget": 1.5}, "budget of 1.5"),
            ({"design": "wta"}, "no design 'wta'"),
            ({"source": "norms"}, "no source 'norms'"),
            ({"skip": "*"}, "no nn.Linear"),
        ]:
            with self.assertRaisesRegex(Error, words):
                convert(self.model(), **options)

    def test_cached_norms_need_the_samples(self):
        model = wrap(linear())
        sampling = convert(model, 0.3, source="cached")
        h = uneven(4, 6, INPUTS)
        with self.assertRaisesRegex(Error, "sampling.batch"):
            model(h)
        with sampling.batch([1, 2, 3], torch.ones(3, 6)), self.assertRaisesRegex(Error, "reads 24 rows"):
            model(h)
        with self.assertRaisesRegex(Error, "mask of shape"), sampling.batch([1, 2], torch.ones(3, 6)):
            pass

    def test_a_cache_follows_samples_through_padding_and_order(self):
        model = wrap(linear())
        sampling = convert(model, 1.0, source="cached")
        lengths = {5: 4, 9: 6, 2: 3}
        tokens = {sample: uneven(n, INPUTS, seed=sample) for sample, n in lengths.items()}

        def visit(samples):
            h = nn.utils.rnn.pad_sequence([tokens[s] for s in samples], batch_first=True)
            mask = torch.arange(h.shape[1]) < torch.tensor([lengths[s] for s in samples])[:, None]
            with sampling.batch(samples, mask):
                z = model(h)
            z.retain_grad()
            (z.sin() * mask[..., None]).sum().backward()
            return z.grad.norm(dim=2), wtacrs_torch.batch.Batch(samples, mask)

        norms, _ = visit([5, 9])
        cache = sampling.guesses["0"]
        later = wtacrs_torch.batch.Batch([2, 9], [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]])
        prior = cache.prior(later, 14, norms.device).reshape(2, 7)
        self.assertEqual(prior[0].tolist(), [-1, -1, -1, 0, 0, 0, 0])
        torch.testing.assert_close(prior[1, :6], norms[1, :6])
        self.assertEqual(prior[1, 6], 0)

    def test_the_same_seed_gives_the_same_gradients(self):
        h = uneven(TOKENS, INPUTS)

        def run(**options):
            model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(OUTPUTS, 4))
            torch.manual_seed(11)
            convert(model, 0.3, **options)
            return torch.cat([g.flatten() for _ in range(3) for g in gradients(model, lambda: model(h).sin().sum())])

        for options in ({}, {"seed": 3}):
            self.assertTrue(torch.equal(run(**options), run(**options)))
        self.assertFalse(torch.equal(run(seed=3), run(seed=4)))
        # A seed of a torch generator's size, and the largest.
        run(seed=2**64 - 1)

    def test_state_is_saved_and_restored(self):
        h = uneven(8, TOKENS // 8, INPUTS)
        mask = torch.ones(8, TOKENS // 8)
        for source in ("input", "predicted", "cached"):
            model = wrap(linear())
            sampling = convert(model, 0.3, source=source, seed=3)

            def step(model, sampling):
                with sampling.batch(range(8), mask):
                    return gradients(model, lambda: model(h).sin().sum())[0]

            for _ in range(3):
                step(model, sampling)
            state = copy.deepcopy(sampling.state_dict())
            other = wrap(linear())
            resumed = convert(other, 0.3, source=source)
            resumed.load_state_dict(state)
            for _ in range(3):
                self.assertTrue(torch.equal(step(model, sampling), step(other, resumed)))
        with self.assertRaisesRegex(Error, "source 'cached'"):
            convert(wrap(linear()), 0.3).load_state_dict(state)
        state["guesses"]["0"] = state["guesses"]["0"][:-1]
        with self.assertRaises(Error):
            convert(wrap(linear()), 0.3, source="cached").load_state_dict(state)

    def test_copies(self):
        model = wrap(linear())
        sampling = convert(model, 0.3)
        average = copy.deepcopy(model)
        gradients(average, lambda: average(uneven(TOKENS, INPUTS)).sum())
        self.assertIs(average[0].sampling, sampling)


class Memory(unittest.TestCase):
    def blocks(self):
        torch.manual_seed(0)
        wide = 4 * INPUTS
        return nn.Sequential(*(nn.Sequential(nn.Linear(INPUTS, wide), nn.GELU(), nn.Linear(wide, INPUTS)) for _ in range(4)))

    def test_linear_activations_shrink_to_the_budget(self):
        model, h = self.blocks(), uneven(1000, INPUTS)
        with SavedBytes(model) as full:
            model(h)
        for dtype_bytes, budget, bound in ((4, 0.3, 0.35), (4, 0.1, 0.12)):
            sampling = convert(model, budget)
            with SavedBytes(model) as saved:
                model(h)
            self.assertEqual(full.linear, 4 * 1000 * 5 * INPUTS * dtype_bytes)
            self.assertLess(saved.linear, bound * full.linear)
            self.assertEqual(full.total - full.linear, saved.total - saved.linear)
            sampling.revert()

    def test_memory_is_given_back(self):
        """Between the passes only the sampled rows live; after the backward pass nothing does."""
        model, h = self.blocks(), uneven(1000, INPUTS)

        def held():
            gc.collect()
            seen = {}
            for item in gc.get_objects():
                if type(item) is torch.Tensor:
                    seen[item.untyped_storage().data_ptr()] = item.untyped_storage().nbytes()
            return sum(seen.values())

        sampling = convert(model, 0.3)
        z = model(h)
        readings = sampling._readings._by_tensor
        self.assertEqual(len(readings), 1, "a reading outlives its tensor, or that of h, which lives, is gone")
        before = held()
        z.sum().backward()
        del z
        self.assertIsNone(readings[h].block)
        self.assertLessEqual(held(), before + 4 * sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    unittest.main()
