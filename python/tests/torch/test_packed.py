"""Packed rows: what is converted, what is held, how far gradients are from exact ones, and steps that pack all rows."""

import contextlib
import copy
import pathlib
import unittest
from unittest import mock

import safetensors.torch
import torch
import torch.distributed as distributed
from torch import nn
from torch.utils.checkpoint import checkpoint

from wtacrs import _native
from wtacrs.torch import Error, SampledLinear, SavedBytes, convert

from .helpers import (
    INPUTS,
    OUTPUTS,
    ROOM,
    TOKENS,
    Attention,
    always_sampled,
    block_of,
    convert_native,
    gradients,
    linear,
    unbiased,
    uneven,
    wrap,
)

RECORDED = pathlib.Path(__file__).parents[3] / "testdata" / "minilm_l3_value_imdb_1024.safetensors"


class Conversion(unittest.TestCase):
    def test_four_bits_are_the_default(self):
        sampling = convert(wrap(linear()))
        self.assertEqual((sampling.budget, sampling.bits), (0.3, 4))
        self.assertIn("bits=4", repr(sampling.layers["0"]))

    def test_other_bits_are_refused(self):
        for bits in (None, 3, 16, "4"):
            with self.assertRaisesRegex(Error, f"no number of bits {bits!r}; there are native, 8, 4, 2"):
                convert(wrap(linear()), bits=bits)

    def left_exact(self, in_features, dtype=torch.float32, **options):
        model = nn.ModuleDict({"wide": nn.Linear(512, 8), "narrow": nn.Linear(in_features, 8)}).to(dtype)
        sampling = convert(model, **options)
        kinds = {type(model["narrow"]) is nn.Linear, type(model["wide"]) is nn.Linear}
        self.assertEqual(kinds, {"narrow" in dict(sampling.left_exact), "wide" in dict(sampling.left_exact)})
        return dict(sampling.left_exact).get("narrow")

    def test_layers_that_would_save_no_less_are_left_exact(self):
        self.assertEqual(self.left_exact(1), "a row of its input takes 4 bytes, a packed one 12")
        # The second layer of a rank-4 adapter, in bf16 and in f32.
        for budget in (0.3, 1.0):
            expected = "a row of its input takes 8 bytes, a packed one 12"
            self.assertEqual(self.left_exact(4, torch.bfloat16, budget=budget), expected)
            expected = "a row of its input takes 16 bytes, and layers below 64 are exact"
            self.assertEqual(self.left_exact(4, budget=budget), expected)
            self.assertIsNone(self.left_exact(16, budget=budget))
        # With indices and scales, too.
        self.assertIn("takes 16000 bytes, saved rows 19200", self.left_exact(4, budget=0.8))
        # Exact copies of nearly all rows.
        self.assertIn("takes 256000 bytes, saved rows 257280", self.left_exact(64, budget=0.96, bits="native"))
        self.assertIsNone(self.left_exact(64, budget=0.95, bits="native"))

    def test_native_copies_of_all_rows_are_left_to_torch(self):
        model = wrap(linear())
        sampling = convert(model, 1.0, bits="native")
        self.assertIs(type(model[0]), nn.Linear)
        self.assertEqual((sampling.layers, len(sampling.left_exact)), ({}, 1))

    def test_the_report(self):
        model = nn.Sequential(nn.Linear(384, 2), nn.Linear(1536, 2), nn.Linear(1, 2))
        lines = str(convert(model)).splitlines()
        self.assertEqual(lines[0], "2 layers are sampled")
        self.assertIn("      a row of its input takes 4 bytes, a packed one 12", lines)
        for sample, words in ((lambda m: convert(m, 1.0), "budget 1.0  4 bits"), (convert_native, "native rows")):
            model = wrap(linear())
            self.assertIn(words, str(sample(model)))

    def test_a_pass_over_few_tokens_is_exact_and_says_so(self):
        model = wrap(linear())
        sampling = convert(model)
        h = uneven(1, INPUTS)
        with SavedBytes(model) as saved:
            z = model(h)
        self.assertEqual(saved.total, h.nbytes)
        z.sum().backward()
        torch.testing.assert_close(model[0].weight.grad, h.expand(OUTPUTS, -1))
        ((name, reason),) = sampling.left_exact
        self.assertEqual(name, "0")
        self.assertEqual(reason, "a pass over 1 row, and passes below 64 are exact")
        # The layer still saves rows where that pays, and its state is loaded.
        self.assertIs(type(model[0]), SampledLinear)
        gradients(model, lambda: model(uneven(TOKENS, INPUTS)).sum())
        sampling.load_state_dict(sampling.state_dict())
        self.assertEqual(list(sampling.guesses), ["0"])

    def test_a_state_serves_other_bits(self):
        """Which layers stay exact may differ then, too."""
        h = uneven(TOKENS, INPUTS)
        model = nn.Sequential(linear(), nn.Linear(OUTPUTS, 1), nn.Linear(1, 1))
        with always_sampled():
            native = convert_native(model, 0.3, seed=5)
            gradients(model, lambda: model(h).sum())
        state = copy.deepcopy(native.state_dict())
        native.revert()
        packed = convert(model)
        packed.load_state_dict(state)
        self.assertEqual((packed.seed, packed.offset), (native.seed, native.offset))
        self.assertEqual(list(packed.guesses), ["0", "1"])
        self.assertTrue(torch.equal(packed.guesses["0"].to_bytes(), native.guesses["0"].to_bytes()))
        gradients(model, lambda: model(h).sum())
        packed.revert()
        # Where all rows are packed, guesses serve nobody, but go on to the next.
        convert(model, 1.0).load_state_dict(state)


class Estimates(unittest.TestCase):
    dtypes = (torch.bfloat16, torch.float16, torch.float64)

    def test_unbiased(self):
        h, target = uneven(TOKENS, INPUTS), uneven(TOKENS, OUTPUTS, seed=2)
        model = wrap(linear())
        loss = lambda: (model(h).sin() * target).sum()
        exact = gradients(model, loss)
        for budget, bits, source in (
            (0.3, 4, "predicted"),
            (0.3, 2, "input"),
            (1.0, 2, "predicted"),
            (0.2, 8, "cached"),
        ):
            with self.subTest(budget=budget, bits=bits, source=source):
                sampling = convert(model, budget, source=source, bits=bits, seed=7, **ROOM)

                def draw():
                    with sampling.batch(range(TOKENS)):
                        weight, bias = gradients(model, loss)
                    torch.testing.assert_close(bias, exact[1], rtol=1e-4, atol=1e-4)
                    return weight

                unbiased(self, draw, exact[0], draws=150)
                sampling.revert()

    def test_all_rows_of_a_recorded_layer(self):
        """How far the gradient is from the exact one, by bits: docs/results.md has the same numbers."""
        read = safetensors.torch.load_file(RECORDED)
        h, dz = read["h"].float(), read["dz"].float()
        model = nn.Linear(h.shape[1], dz.shape[1], bias=False)
        exact = dz.T @ h
        for bits, least, most in ((8, 0.001, 0.003), (4, 0.02, 0.045), (2, 0.1, 0.22)):
            sampling = convert(wrap(model), 1.0, bits=bits, seed=1)
            model.weight.grad = None
            model(h).backward(dz)
            error = ((model.weight.grad - exact).norm() / exact.norm()).item()
            self.assertTrue(least < error < most, f"{error} at {bits} bits")
            sampling.revert()

    def test_dtypes(self):
        h = uneven(TOKENS, INPUTS)
        for dtype in self.dtypes:
            model = wrap(linear()).to(dtype)
            loss = lambda: model(h.to(dtype)).float().sum()
            exact = gradients(model, loss)[0]
            convert(model, 1.0, bits=8, seed=1)
            found = gradients(model, loss)[0]
            self.assertIs(found.dtype, dtype)
            self.assertLess((found - exact).float().norm(), 0.02 * exact.float().norm())

    def test_autocast(self):
        model, h = wrap(linear()), uneven(TOKENS, INPUTS)
        loss = lambda: model(h).float().sum()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            exact = gradients(model, loss)[0]
            convert(model, 1.0, bits=8, seed=1)
            found = gradients(model, loss)[0]
        self.assertLess((found - exact).norm(), 0.02 * exact.norm())

    def test_the_same_seed_gives_the_same_gradients(self):
        h = uneven(TOKENS, INPUTS)

        def run(seed, budget):
            model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(OUTPUTS, 4))
            convert(model, budget, seed=seed, sample_kept_inputs=True)
            return [gradients(model, lambda: model(h).sin().sum())[0] for _ in range(2)]

        for budget in (0.3, 1.0):
            first, second = run(3, budget)
            again = run(3, budget)
            self.assertTrue(torch.equal(first, again[0]) and torch.equal(second, again[1]))
            self.assertFalse(torch.equal(first, second))
            self.assertFalse(torch.equal(first, run(4, budget)[0]))

    def test_a_row_that_is_out_of_range_is_named(self):
        """It is finite, and its norm is not a f32."""
        h = uneven(TOKENS, INPUTS).double()
        h[17, 3] = 1e300
        for budget in (0.3, 1.0):
            model = wrap(linear()).double()
            convert(model, budget)
            with self.assertRaisesRegex(Error, "17"):
                model(h)


class AllRows(unittest.TestCase):
    """A budget of 1: nothing is chosen, so that there is nothing to guess, to learn or to exchange."""

    # What a block may have beyond its rows.
    slack = 4 * 64

    def setUp(self):
        self.h = uneven(TOKENS, INPUTS).requires_grad_()
        self.model = Attention()
        self.exact = gradients(self.model, lambda: self.model(self.h))

    def check_near(self, found, bound=0.1):
        for one, other in zip(found, self.exact):
            self.assertLess((one - other).norm(), bound * other.norm())

    @contextlib.contextmanager
    def passes(self):
        """The arguments of the library's passes."""
        calls = {}
        with contextlib.ExitStack() as stack:
            for name in ("forward", "backward"):
                method = getattr(_native.LayerPlan, name)
                spy = mock.patch.object(_native.LayerPlan, name, autospec=True, side_effect=method)
                calls[name] = stack.enter_context(spy)
            yield calls

    def test_no_norms_no_guesses_and_one_block(self):
        for source in ("input", "predicted", "cached"):
            sampling = convert(self.model, 1.0, source=source)
            with self.passes() as calls, SavedBytes(self.model) as saved:
                loss = self.model(self.h)
                self.assertEqual(calls["forward"].call_count, 1)
                _, _, guess, predictor, *_ = calls["forward"].call_args.args
                self.assertEqual((guess, predictor), (None, None))
            # Codes and a group's numbers for each row, no index and no scale.
            self.assertLess(abs(saved.linear - TOKENS * (INPUTS // 2 + 4)), self.slack)
            with self.passes() as calls:
                loss.backward()
                norms = [call.args[4] for call in calls["backward"].call_args_list]
                self.assertEqual(norms, [None] * 3)
            self.assertEqual(sampling.guesses, {})
            self.assertEqual(sampling.state_dict()["guesses"], {})
            sampling.revert()

    def test_gradients_are_near_the_exact_ones(self):
        self.h.grad = None
        gradients(self.model, lambda: self.model(self.h))
        exact_h = self.h.grad
        convert(self.model, 1.0, seed=2)
        self.h.grad = None
        self.check_near(gradients(self.model, lambda: self.model(self.h)))
        torch.testing.assert_close(self.h.grad, exact_h)

    def test_checkpointing(self):
        sampling = convert(self.model, 1.0, seed=2)
        self.model(self.h.clone())
        draws = sampling.offset
        for reentrant in (False, True):
            run = lambda: checkpoint(self.model, self.h, use_reentrant=reentrant)
            self.check_near(gradients(self.model, run))
            self.assertIsNone(block_of(sampling, self.h))
        # The second run of a segment finds the rows of the first, unless that recorded no graph and packed none.
        self.assertEqual(sampling.offset, 3 * draws)

    def test_accumulation_and_dropped_graphs(self):
        convert(self.model, 1.0, seed=2)
        self.model(self.h)
        self.exact = [2 * gradient for gradient in self.exact]
        self.check_near(gradients(self.model, lambda: self.model(self.h) + self.model(self.h)))

    def test_ranks_exchange_nothing(self):
        sampling = convert(self.model, 1.0)
        gradients(self.model, lambda: self.model(self.h))
        sampling.group = object()
        with mock.patch.object(distributed, "all_gather_object", side_effect=AssertionError):
            sampling.exchange()

    @always_sampled()
    def test_a_small_pass_of_which_a_budget_keeps_all(self):
        """Rows of 3 tokens, of which 0.9 are all: the guess is there for the other ranks, but learns nothing."""
        model = wrap(nn.Linear(512, 8))
        sampling = convert(model, 0.9, bits=8, seed=1)
        h = uneven(3, 512)
        gradient = gradients(model, lambda: model(h).sum())[0]
        self.assertLess((gradient - h.sum(0)).norm(), 0.02 * gradient.norm())
        before = sampling.guesses["0"].to_bytes()
        gradients(model, lambda: model(h).sum())
        self.assertTrue(torch.equal(sampling.guesses["0"].to_bytes(), before))


class SharedInput(unittest.TestCase):
    # What a block may have beyond its rows.
    slack = 5 * 64

    def test_one_block_and_one_predictor_that_learns(self):
        h, model = uneven(TOKENS, INPUTS), Attention()
        sampling = convert(model, 0.3, seed=5)
        with SavedBytes(model) as saved:
            loss = model(h)
        rows = round(0.3 * TOKENS)
        self.assertLess(abs(saved.linear - rows * (INPUTS // 2 + 4 + 12)), self.slack)
        loss.backward()
        before = sampling.guesses["query"].to_bytes()
        model(h).backward()
        self.assertEqual(list(sampling.guesses), ["query"])
        self.assertFalse(torch.equal(sampling.guesses["query"].to_bytes(), before))


class Memory(unittest.TestCase):
    def test_what_linear_layers_hold(self):
        """The feed-forward part of a BERT layer in f32, as a share of what exact layers hold."""
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(384, 1536), nn.GELU(), nn.Linear(1536, 384))
        h = uneven(512, 384)
        with SavedBytes(model) as full:
            model(h)
        for budget, bits, most in ((0.3, 4, 0.045), (0.3, 2, 0.025), (1.0, 4, 0.135), (1.0, 2, 0.072), (0.3, 8, 0.082)):
            sampling = convert(model, budget, bits=bits)
            with SavedBytes(model) as saved:
                model(h)
            share = saved.linear / full.linear
            self.assertTrue(0.85 * most < share <= most, f"{share} at {budget} and {bits} bits")
            self.assertEqual(full.total - full.linear, saved.total - saved.linear)
            sampling.revert()


if __name__ == "__main__":
    unittest.main()
