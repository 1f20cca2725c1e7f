"""Estimates of weight gradients: their means, what they cost, and what layers share that read one H."""

import unittest

import torch

from wtacrs.torch import SavedBytes
from wtacrs.torch.linear.batch_layout import Batch

from .helpers import INPUTS, OUTPUTS, ROOM, TOKENS, Attention, always_sampled, gradients, linear, unbiased, uneven, wrap
from .helpers import convert_native as convert


class Estimates(unittest.TestCase):
    dtypes = (torch.float32, torch.float64)
    # What of exact products may differ: as much as torch takes for granted.
    rounding = {}

    def check_unbiased(self, source, design, batch=None):
        h, target = uneven(TOKENS, INPUTS), uneven(TOKENS, OUTPUTS, seed=2)
        model = wrap(linear())
        loss = lambda: (model(h).sin() * target).sum()
        exact = gradients(model, loss)
        sampling = convert(model, 0.3, design, source, seed=7, **ROOM)

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
        self.enterContext(always_sampled())
        h = uneven(4, TOKENS // 4, INPUTS).requires_grad_()
        for dtype in self.dtypes:
            given = h.detach().to(dtype).requires_grad_()
            model = wrap(linear()).to(dtype)
            loss = lambda: model(given).cos().square().sum()
            exact, exact_h = gradients(model, loss), given.grad
            for source in ("input", "predicted"):
                given.grad = None
                sampling = convert(model, 1.0, source=source)
                torch.testing.assert_close(gradients(model, loss), exact, **self.rounding)
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
    # What a block may have beyond its rows.
    slack = 4 * 64

    def test_one_block_one_predictor_and_no_bias(self):
        h = uneven(TOKENS, INPUTS)
        model = Attention()
        exact = gradients(model, lambda: model(h))
        sampling = convert(model, 0.3, seed=5)
        with SavedBytes(model) as saved:
            loss = model(h)
        rows = round(0.3 * TOKENS)
        self.assertLess(abs(saved.linear - rows * (INPUTS * 4 + 12)), self.slack)
        loss.backward()
        self.assertEqual(list(sampling.guesses), ["query"])
        for layer in range(3):
            unbiased(self, lambda: gradients(model, lambda: model(h))[2 * layer], exact[2 * layer], draws=150)

    def test_layers_that_read_between_do_not_part_those_that_share(self):
        h, other = uneven(TOKENS, INPUTS), uneven(TOKENS, INPUTS, seed=1)
        model = Attention()
        sampling = convert(model, 0.3)
        with SavedBytes(model) as saved:
            z = model.query(h), model.key(other), model.value(h)
        self.assertLess(abs(saved.linear - 2 * round(0.3 * TOKENS) * (INPUTS * 4 + 12)), 2 * self.slack)
        self.assertEqual(len(sampling.guesses), 2)
        del z

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
        sampling = convert(model, 0.3, source="cached", **ROOM)
        with sampling.batch(range(TOKENS)):
            model(h).backward()
        cache = sampling.guesses["query"]
        batch = Batch(range(TOKENS))
        model.eval()
        z = [layer(h).detach().requires_grad_() for layer in (model.query, model.key, model.value)]
        (z[0] * z[1].sin() + z[2].square()).sum().backward()
        joint = torch.cat([part.grad for part in z], 1).norm(dim=1)
        torch.testing.assert_close(cache.prior(batch, TOKENS), joint, rtol=1e-4, atol=1e-5)

    def test_a_selection_serves_one_step_only(self):
        h = uneven(TOKENS, INPUTS)
        model = wrap(linear())
        sampling = convert(model, 0.3)
        seen = {tuple(gradients(model, lambda: model(h).sum())[0].flatten().tolist()) for _ in range(5)}
        self.assertEqual(len(seen), 5)
        self.assertEqual(len(sampling.guesses), 1)


if __name__ == "__main__":
    unittest.main()
