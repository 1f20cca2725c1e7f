"""Which tensors are one H: views of a storage, whoever makes them, and the norms that their layers teach together."""

import unittest

import numpy
import torch
from torch.utils.checkpoint import checkpoint

from wtacrs.torch import Error, SavedBytes
from wtacrs.torch.linear.batch_layout import Batch
from wtacrs.torch.linear.shared_input import SharedInput, SharedInputs, joint_norms

from .helpers import INPUTS, OUTPUTS, ROOM, TOKENS, Attention, always_sampled, gradients, unbiased, uneven
from .helpers import convert_native as convert


class Views(Attention):
    """Each layer makes a view of its own, as models that flatten batch and length do."""

    def __init__(self, view):
        super().__init__()
        self.view = view

    def forward(self, h):
        return (self.query(self.view(h)) * self.key(self.view(h)).sin() + self.value(self.view(h)).square()).sum()


VIEWS = {
    "view": lambda h: h.view(-1, INPUTS),
    "reshape": lambda h: h.reshape(2, -1, INPUTS),
    "detached": lambda h: h.detach(),
    "alias": lambda h: h.view_as(h),
    "twice": lambda h: h.flatten(0, 1).unflatten(0, (4, -1)),
    "slice": lambda h: h[:, 1:],
}


class ViewsOfOneInput(unittest.TestCase):
    # What a block may have beyond its rows.
    slack = 4 * 64

    def setUp(self):
        self.h = uneven(8, TOKENS // 8, INPUTS)
        torch.manual_seed(0)

    def test_they_share_one_block_and_one_guess(self):
        for name, view in VIEWS.items():
            with self.subTest(name):
                model = Views(view)
                sampling = convert(model, 0.3)
                with SavedBytes(model) as saved:
                    loss = model(self.h)
                rows = round(0.3 * view(self.h).numel() / INPUTS)
                self.assertLess(abs(saved.linear - rows * (INPUTS * 4 + 12)), self.slack)
                loss.backward()
                self.assertEqual(list(sampling.guesses), ["query"])

    def test_the_mean_is_exact(self):
        model = Views(VIEWS["view"])
        exact = gradients(model, lambda: model(self.h))
        convert(model, 0.3, seed=5)
        for layer in range(3):
            unbiased(self, lambda: gradients(model, lambda: model(self.h))[2 * layer], exact[2 * layer], draws=150)

    def test_under_checkpointing(self):
        for reentrant in (False, True):
            model = Views(VIEWS["view"])
            sampling = convert(model, 0.3, source="cached", **ROOM)
            h = self.h.clone().requires_grad_()
            with sampling.batch(range(TOKENS)):
                checkpoint(model, h, use_reentrant=reentrant).backward()
            drawn = sampling.offset
            with sampling.batch(range(TOKENS)):
                model(h).backward()
            self.assertEqual(sampling.offset, 2 * drawn)
            self.assertEqual(list(sampling.guesses), ["query"])
            self.assertTrue((sampling.guesses["query"].prior(Batch(range(TOKENS)), TOKENS) > 0).all())

    def test_axes_before_the_rows_play_no_part(self):
        model = Attention()
        sampling = convert(model, 0.3)
        model.query(self.h)
        one = sampling.offset
        model.key(self.h.view(-1, INPUTS))
        model.value(self.h.view(4, 2, -1, INPUTS))
        self.assertEqual(sampling.offset, one)

    def test_other_elements_or_another_order_are_another_input(self):
        self.enterContext(always_sampled())
        model = Attention()
        sampling = convert(model, 0.3)
        square = uneven(INPUTS, INPUTS)
        z = model.query(square)
        for name, other in {
            "transposed": square.T,
            "copied": square.clone(),
            "shorter": square[:-1],
            "later": square[1:],
            "backwards": square.flip(0),
            "every other": square[::2],
        }.items():
            drawn = sampling.offset
            model.key(other)
            self.assertGreater(sampling.offset, drawn, name)
        drawn = sampling.offset
        model.value(square.view(INPUTS, INPUTS))
        self.assertEqual(sampling.offset, drawn)
        del z

    def test_layers_that_keep_rows_in_other_forms_do_not_part_those_that_share(self):
        model = Attention()
        sampling = convert(model, 0.3)
        model.key.sampled.budget = 0.5
        h = uneven(TOKENS, INPUTS)
        z = model.query(h), model.key(h)
        drawn = sampling.offset
        z += (model.value(h),)
        self.assertEqual(sampling.offset, drawn)

    def test_what_is_changed_through_a_view_is_another_input(self):
        model = Attention()
        sampling = convert(model, 0.3)
        h = uneven(TOKENS, INPUTS)
        model.query(h.view(2, -1, INPUTS))
        one = sampling.offset
        h[0, 0] = 5
        model.key(h.view(2, -1, INPUTS))
        self.assertEqual(sampling.offset, 2 * one)

    def test_an_address_that_is_used_again_is_another_input(self):
        """A new storage for each tensor, all of them at one address."""
        model = Attention()
        sampling = convert(model, 0.3)
        memory, outputs, drawn = numpy.empty((TOKENS, INPUTS), numpy.float32), [], 0
        for value in (1, 2, 3):
            memory.fill(value)
            outputs.append(model.query(torch.from_numpy(memory)))
            self.assertGreater(sampling.offset, drawn)
            drawn = sampling.offset

    def test_storages_that_are_gone_are_forgotten(self):
        inputs, block = SharedInputs(), torch.empty(1)
        for _ in range(1000):
            tensor = torch.empty(3)
            inputs.hold(tensor, SharedInput(None, None, tensor.dtype, tensor._version), block)
            self.assertIsNotNone(inputs.of(tensor, tensor.dtype))
        self.assertEqual(len(inputs), 1)
        self.assertLessEqual(len(inputs._by_place), SharedInputs._FEW)


class MasksOfTwoLengths(unittest.TestCase):
    """An encoder and a decoder, whose layers read rows of their own, with cached norms."""

    masks = torch.arange(32) < torch.arange(20, 28)[:, None], torch.arange(16) < torch.arange(8, 16)[:, None]

    def setUp(self):
        torch.manual_seed(0)
        self.inputs = [uneven(8, mask.shape[1], INPUTS) for mask in self.masks]
        self.model = torch.nn.ModuleList(torch.nn.Linear(INPUTS, OUTPUTS) for _ in self.masks)

    def step(self, sampling, call=torch.nn.Module.__call__):
        with sampling.batch(range(8), *self.masks):
            outputs = [call(layer, h) for layer, h in zip(self.model, self.inputs)]
        torch.autograd.backward(outputs, [torch.ones_like(z) * m[..., None] for z, m in zip(outputs, self.masks)])

    def test_each_layer_reads_the_mask_of_its_length(self):
        for masks in (self.masks, self.masks[::-1]):
            sampling = convert(self.model, 0.3, source="cached", samples=8, tokens_per_sample=32)
            self.step(sampling)
            for guess, mask in zip(sampling.guesses.values(), self.masks):
                found = guess.prior(Batch(range(8), *masks), mask.numel())
                torch.testing.assert_close(found, OUTPUTS**0.5 * mask.flatten())
            sampling.revert()

    def test_in_a_trace(self):
        found = []
        for call in (torch.nn.Module.__call__, torch.compile(lambda layer, h: layer(h), backend="aot_eager")):
            sampling = convert(self.model, 0.3, source="cached", samples=8, tokens_per_sample=32, seed=1)
            self.model.zero_grad()
            for _ in range(2):
                self.step(sampling, call)
            found.append([p.grad for p in self.model.parameters()])
            sampling.revert()
        for eager, compiled in zip(*found):
            self.assertTrue(torch.equal(eager, compiled))

    def test_what_does_not_fit_is_named(self):
        sampling = convert(self.model, 0.3, source="cached", samples=8, tokens_per_sample=32)
        with sampling.batch(range(8), *self.masks):
            with self.assertRaisesRegex(Error, "reads 192 rows, but the batch has 8 samples and masks of 256 and 128"):
                self.model[0](uneven(192, INPUTS))
        with self.assertRaisesRegex(Error, r"two masks of shape \(8, 32\)"):
            with sampling.batch(range(8), self.masks[0], self.masks[0]):
                pass
        with self.assertRaisesRegex(Error, "a sample of 40 tokens"):
            with sampling.batch(range(8), self.masks[0], torch.ones(8, 40)):
                pass


class JointNorms(unittest.TestCase):
    def test_they_neither_overflow_nor_vanish(self):
        for size in (1e22, 1.0, 1e-23, 1e-38):
            norms = [torch.tensor([3.0, 0.0, 1.0]) * size, torch.tensor([4.0, 0.0, 0.0]) * size]
            joint = joint_norms(norms)
            self.assertIs(joint.dtype, torch.float32)
            torch.testing.assert_close(joint, torch.tensor([5.0, 0.0, 1.0]) * size, rtol=1e-6, atol=0)

    def test_layers_teach_them(self):
        """The gradients of a loss that is scaled up or down."""
        h = uneven(TOKENS, INPUTS)
        for size in (1e22, 1e-23):
            model = Attention()
            sampling = convert(model, 0.3, source="cached", **ROOM)
            dz = [torch.full((TOKENS, OUTPUTS), size) for _ in range(3)]
            with sampling.batch(range(TOKENS)):
                z = model.query(h), model.key(h), model.value(h)
                torch.autograd.backward(z, dz)
            found = sampling.guesses["query"].prior(Batch(range(TOKENS)), TOKENS)
            expected = torch.cat([part.double() for part in dz], 1).norm(dim=1).float()
            torch.testing.assert_close(found, expected, rtol=1e-5, atol=0)


if __name__ == "__main__":
    unittest.main()
