"""Conversion, caches by sample, seeds, state, and the memory that torch really holds."""

import copy
import gc
import os
import unittest
from unittest import mock

import torch
from torch import nn

from wtacrs.torch import Error, SampledLinear, SavedBytes, devices
from wtacrs.torch.linear.batch_layout import Batch

from .helpers import INPUTS, OUTPUTS, ROOM, TOKENS, always_sampled, block_of, gradients, linear, uneven, wrap
from .helpers import convert_native as convert


class Conversion(unittest.TestCase):
    def model(self):
        torch.manual_seed(0)
        return nn.ModuleDict({"a": nn.Linear(16, 16), "b": nn.Linear(16, 16), "attention": nn.MultiheadAttention(8, 2)})

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
            ({"skip": "*"}, "skip covers all layers"),
        ]:
            with self.assertRaisesRegex(Error, words):
                convert(self.model(), **options)
        with self.assertRaisesRegex(Error, "a str in the place of the model"):
            convert("model")

    def test_what_is_no_state_is_refused(self):
        with self.assertRaisesRegex(Error, "no state of a Sampling: it lacks source, seed, offset, guesses"):
            convert(wrap(linear())).load_state_dict({})

    def test_torch_func_goes_torchs_own_way(self):
        model, h = wrap(linear()), uneven(TOKENS, INPUTS)
        exact = gradients(model, lambda: model(h).sin().sum())[0]
        sampling = convert(model, 0.3)
        loss = lambda parameters: torch.func.functional_call(model, parameters, (h,)).sin().sum()
        found = torch.func.grad(loss)(dict(model.named_parameters()))
        self.assertTrue(torch.equal(found["0.weight"], exact))
        self.assertEqual(sampling.left_exact, [("0", "its weight is a tensor of torch.func")])

    def test_cached_norms_need_the_samples(self):
        self.enterContext(always_sampled())
        model = wrap(linear())
        sampling = convert(model, 0.3, source="cached", **ROOM)
        h = uneven(4, 6, INPUTS)
        with self.assertRaisesRegex(Error, "sampling.batch"):
            model(h)
        with sampling.batch([1, 2, 3], torch.ones(3, 6)), self.assertRaisesRegex(Error, "reads 24 rows"):
            model(h)
        with self.assertRaisesRegex(Error, "mask of shape"), sampling.batch([1, 2], torch.ones(3, 6)):
            pass

    def test_a_cache_follows_samples_through_padding_and_order(self):
        self.enterContext(always_sampled())
        model = wrap(linear())
        sampling = convert(model, 1.0, source="cached", **ROOM)
        lengths = {5: 4, 9: 6, 2: 3}
        tokens = {sample: uneven(n, INPUTS, seed=sample) for sample, n in lengths.items()}

        def visit(samples):
            h = nn.utils.rnn.pad_sequence([tokens[s] for s in samples], batch_first=True)
            mask = torch.arange(h.shape[1]) < torch.tensor([lengths[s] for s in samples])[:, None]
            with sampling.batch(samples, mask):
                z = model(h)
            z.retain_grad()
            (z.sin() * mask[..., None]).sum().backward()
            return z.grad.norm(dim=2), Batch(samples, mask)

        norms, _ = visit([5, 9])
        cache = sampling.guesses["0"]
        later = Batch([2, 9], [[1, 1, 1, 0, 0, 0, 0], [1, 1, 1, 1, 1, 1, 0]])
        prior = cache.prior(later, 14).reshape(2, 7)
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
            sampling = convert(model, 0.3, source=source, seed=3, **ROOM)

            def step(model, sampling):
                with sampling.batch(range(8), mask):
                    return gradients(model, lambda: model(h).sin().sum())[0]

            for _ in range(3):
                step(model, sampling)
            state = copy.deepcopy(sampling.state_dict())
            other = wrap(linear())
            resumed = convert(other, 0.3, source=source, **ROOM)
            resumed.load_state_dict(state)
            for _ in range(3):
                self.assertTrue(torch.equal(step(model, sampling), step(other, resumed)))
        with self.assertRaisesRegex(Error, "source 'cached'"):
            convert(wrap(linear()), 0.3).load_state_dict(state)
        state["guesses"]["0"] = state["guesses"]["0"][:-1]
        with self.assertRaises(Error):
            convert(wrap(linear()), 0.3, source="cached", **ROOM).load_state_dict(state)

    def test_copies(self):
        model = wrap(linear())
        sampling = convert(model, 0.3)
        average = copy.deepcopy(model)
        gradients(average, lambda: average(uneven(TOKENS, INPUTS)).sum())
        self.assertIs(average[0].sampled.sampling, sampling)


class Threads(unittest.TestCase):
    def test_the_library_has_as_many_as_torch(self):
        """Unless RAYON_NUM_THREADS says how many."""
        for environment, expected in (({}, torch.get_num_threads()), ({"RAYON_NUM_THREADS": "5"}, 0)):
            with (
                mock.patch.dict(os.environ, environment, clear=True),
                mock.patch.object(devices._native, "Context") as made,
            ):
                self.assertIs(devices.Host().context, made.return_value)
            self.assertEqual(made.call_args.kwargs["threads"], expected)


class Memory(unittest.TestCase):
    def blocks(self):
        torch.manual_seed(0)
        wide = 4 * INPUTS
        block = lambda: nn.Sequential(nn.Linear(INPUTS, wide), nn.GELU(), nn.Linear(wide, INPUTS))
        return nn.Sequential(*(block() for _ in range(4)))

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
        inputs = sampling._inputs
        self.assertEqual(len(inputs), 1, "a shared input outlives its tensor, or that of h, which lives, is gone")
        before = held()
        z.sum().backward()
        del z
        self.assertIsNone(block_of(sampling, h))
        self.assertLessEqual(held(), before + 4 * sum(p.numel() for p in model.parameters()))


if __name__ == "__main__":
    unittest.main()
