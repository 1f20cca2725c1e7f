"""What a sampled layer makes of modes, dtypes, shapes, frozen parameters and misuse."""

import math
import unittest

import torch
from torch.utils.dlpack import from_dlpack

from wtacrs import _native
from wtacrs.torch import Error, SavedBytes

from .helpers import INPUTS, OUTPUTS, TOKENS, Attention, always_sampled, gradients, linear, unbiased, uneven, wrap
from .helpers import convert_native as convert


class Cases(unittest.TestCase):
    # What a block may have beyond its rows.
    slack = 4 * 64

    def setUp(self):
        self.enterContext(always_sampled())
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
            found = gradients(self.model, lambda: loss(self.model(wide)))
            torch.testing.assert_close(found, exact, rtol=1e-5, atol=1e-4)

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
            self.assertLess(abs(saved.linear - 72 * (INPUTS * 2 + 12)), self.slack)
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


class Capsules(unittest.TestCase):
    """Torch's tensors by DLPack; tests/numpy/test_native.py has NumPy's."""

    def setUp(self):
        self.h = uneven(3, INPUTS)

    def test_with_a_version_and_without(self):
        context = _native.Context("cpu")
        for options in ({}, {"max_version": (1, 0)}):
            norms = torch.empty(3)
            context.row_norms(_native.Tensor(self.h.__dlpack__(**options)), norms.data_ptr(), 3)
            torch.testing.assert_close(norms, self.h.norm(dim=1))

    def test_used_ones_are_refused(self):
        used = self.h.__dlpack__()
        from_dlpack(used)
        with self.assertRaisesRegex(Error, "used_dltensor"):
            _native.Tensor(used)


if __name__ == "__main__":
    unittest.main()
