"""Gradient checkpointing and its like: what the graph saves is thrown away, and made again in the backward pass."""

import unittest

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint, set_checkpoint_early_stop

from wtacrs.torch.linear.batch_layout import Batch

from .helpers import INPUTS, OUTPUTS, ROOM, TOKENS, Attention, block_of, gradients, linear, unbiased, uneven
from .helpers import convert_native as convert


class Block(Attention):
    """A segment whose first layers read its input."""

    def __init__(self):
        super().__init__()
        self.out = nn.Linear(OUTPUTS, INPUTS)

    def forward(self, h):
        return self.out((self.query(h) * self.key(h).sin() + self.value(h)).tanh())


class Segments(unittest.TestCase):
    def setUp(self):
        self.h = uneven(TOKENS, INPUTS).requires_grad_()
        torch.manual_seed(0)

    def ways(self):
        for reentrant, early_stop in ((False, True), (False, False), (True, True)):
            with self.subTest(reentrant=reentrant, early_stop=early_stop), set_checkpoint_early_stop(early_stop):
                yield lambda part, h: checkpoint(part, h, use_reentrant=reentrant)

    def test_unbiased(self):
        model = nn.Sequential(linear(), nn.Tanh(), nn.Linear(OUTPUTS, OUTPUTS))
        for run in self.ways():
            exact = gradients(model, lambda: model(self.h).sin().sum())
            sampling = convert(model, 0.3, seed=4)
            draws = [gradients(model, lambda: run(model, self.h).sin().sum()) for _ in range(150)]
            for layer in (0, 2):
                unbiased(self, iter(draw[layer] for draw in draws).__next__, exact[layer], draws=150)
            sampling.revert()

    def cached_norms(self, model, forward):
        sampling = convert(model, 0.3, source="cached", **ROOM)
        with sampling.batch(range(TOKENS)):
            forward(sampling)
        norms = {name: guess.prior(Batch(range(TOKENS)), TOKENS) for name, guess in sampling.guesses.items()}
        sampling.revert()
        return norms

    def test_layers_learn_as_they_do_without(self):
        model = nn.ModuleList([Block(), Block()])

        def passes(run):
            def forward(sampling):
                z = self.h
                for block in model:
                    z = run(block, z)
                z.sin().sum().backward()

            return forward

        expected = self.cached_norms(model, passes(lambda block, z: block(z)))
        self.assertEqual(sorted(expected), ["0.out", "0.query", "1.out", "1.query"])
        for run in self.ways():
            torch.testing.assert_close(self.cached_norms(model, passes(run)), expected)

    def test_the_predictor_learns_from_what_is_drawn_again(self):
        model = Attention()
        for run in self.ways():
            sampling = convert(model, 0.3)
            states = []
            for _ in range(3):
                run(model, self.h).backward()
                states.append(sampling.guesses["query"].to_bytes())
            self.assertFalse(torch.equal(states[0], states[1]) or torch.equal(states[1], states[2]))
            sampling.revert()

    def test_segments_that_read_one_tensor(self):
        """As the cross-attentions of a decoder do."""
        model = nn.ModuleList([Block(), Block()])
        passes = lambda run: lambda _: sum(run(block, self.h) for block in model).sin().sum().backward()
        expected = self.cached_norms(model, passes(lambda block, z: block(z)))
        self.assertEqual(sorted(expected), ["0.out", "0.query", "1.out"])
        found = self.cached_norms(model, passes(lambda block, z: checkpoint(block, z, use_reentrant=False)))
        torch.testing.assert_close(found, expected)

    def test_a_segment_holds_no_rows_between_the_passes(self):
        model = Block()
        sampling = convert(model, 0.3)
        z = checkpoint(model, self.h, use_reentrant=False)
        self.assertIsNone(block_of(sampling, self.h))
        # One selection for Q, K and V and one for the last layer, and as many when they are made again.
        drawn = sampling.offset
        z.sum().backward()
        self.assertEqual(sampling.offset, 2 * drawn)
        self.assertIsNone(block_of(sampling, self.h))
        model(self.h)
        self.assertEqual(sampling.offset, 3 * drawn)

    def test_rows_that_are_offloaded(self):
        model = Attention()
        expected = self.cached_norms(model, lambda _: model(self.h).backward())

        def offloaded(_):
            with torch.autograd.graph.saved_tensors_hooks(lambda saved: saved.numpy(force=True), torch.from_numpy):
                loss = model(self.h)
            loss.backward()

        torch.testing.assert_close(self.cached_norms(model, offloaded), expected)


class SeveralForwardPasses(unittest.TestCase):
    def setUp(self):
        self.h = uneven(TOKENS, INPUTS)
        self.model = Attention()
        self.sampling = convert(self.model, 0.3, seed=3)

    def learned(self):
        (guess,) = self.sampling.guesses.values()
        return guess.to_bytes()

    def test_one_without_a_backward_pass(self):
        """Its graph is dropped, and the next one's layers learn."""
        self.model(self.h)
        before = self.learned()
        self.model(self.h).backward()
        self.assertFalse(torch.equal(self.learned(), before))

    def test_an_output_that_nobody_uses(self):
        before = None
        for _ in range(2):
            self.model.value(self.h)
            (self.model.query(self.h) * self.model.key(self.h)).sum().backward()
            self.assertFalse(before is not None and torch.equal(self.learned(), before))
            before = self.learned()

    def test_a_state_that_is_loaded_serves_tensors_that_were_read(self):
        self.model(self.h).backward()
        state = self.sampling.state_dict()
        self.model(self.h).backward()
        second = self.learned()
        self.sampling.load_state_dict(state)
        self.model(self.h).backward()
        self.assertTrue(torch.equal(self.learned(), second))


if __name__ == "__main__":
    unittest.main()
