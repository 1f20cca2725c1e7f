"""Activations that are not finite, as f16 makes them: dW is NaN as torch's is, so that loss scalers skip the step."""

import math
import unittest

import torch
from transformers import BertConfig, BertModel

from wtacrs.torch import Error, convert

from . import emulated
from .helpers import INPUTS, ROOM, TOKENS, Attention, always_sampled, gradients, linear, uneven, wrap

SOURCES = ("input", "predicted", "cached")
BUDGETS = ((0.3, "native"), (0.3, 4), (1.0, 4))


class Overflow:
    device = None

    def setUp(self):
        self.enterContext(always_sampled())
        self.h = uneven(TOKENS, INPUTS).to(self.device)

    def ways(self):
        for value in (math.inf, -math.inf, math.nan):
            h = self.h.clone()
            h[17, 3] = value
            for source in SOURCES:
                for budget, bits in BUDGETS:
                    with self.subTest(value=value, source=source, budget=budget, bits=bits):
                        yield h, {"source": source, "budget": budget, "bits": bits, "seed": 1, **ROOM}

    def test_the_weights_gradient_is_nan(self):
        for h, options in self.ways():
            model = wrap(linear()).to(self.device)
            exact = gradients(model, lambda: model(h).sum())
            sampling = convert(model, **options)
            with sampling.batch(range(TOKENS)):
                weight, bias = gradients(model, lambda: model(h).sum())
            self.assertTrue(weight.isnan().all())
            self.assertFalse(torch.isfinite(exact[0]).all())
            # The bias never reads h.
            torch.testing.assert_close(bias, exact[1])

    def test_the_guess_learns_nothing_from_such_a_step(self):
        for h, options in self.ways():
            model = Attention().to(self.device)
            sampling = convert(model, **options)
            with sampling.batch(range(TOKENS)):
                gradients(model, lambda: model(self.h))
                before = sampling.state_dict()["guesses"]
                # Gradients that are finite although the outputs are not.
                for gradient in gradients(
                    model, lambda: sum(torch.nan_to_num(layer(h)).sum() for layer in model.children())
                ):
                    self.assertEqual(gradient.ndim == 2, bool(gradient.isnan().all()))
                after = sampling.state_dict()["guesses"]
                self.assertEqual(list(before), list(after))
                for name in before:
                    self.assertTrue(torch.equal(before[name], after[name]))
                # And the next step is as ever.
                for gradient in gradients(model, lambda: model(self.h)):
                    self.assertTrue(gradient.isfinite().all())

    def test_a_loss_scaler_skips_the_step(self):
        model = wrap(linear()).to(self.device, torch.float32)
        convert(model, 0.3, seed=1)
        optimizer, scaler = (
            torch.optim.SGD(model.parameters(), lr=0.1),
            torch.amp.GradScaler(self.device, init_scale=4.0),
        )
        before = [p.detach().clone() for p in model.parameters()]

        def step(h):
            optimizer.zero_grad()
            with torch.autocast(self.device, dtype=torch.float16):
                loss = torch.nan_to_num(model(h)).float().mean()
            scaler.scale(loss).backward()
            scaler.step(optimizer)
            scaler.update()

        large = self.h.clone()
        large[5] = 1e6
        step(large)
        self.assertEqual(scaler.get_scale(), 2.0)
        for one, other in zip(model.parameters(), before):
            self.assertTrue(torch.equal(one, other))
        step(self.h)
        self.assertEqual(scaler.get_scale(), 2.0)
        self.assertFalse(torch.equal(model[0].weight, before[0]))


class OnTheHost(Overflow, unittest.TestCase):
    device = "cpu"

    def test_a_model_with_everything_packed(self):
        config = BertConfig(
            vocab_size=50, hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_attention_heads=4
        )
        ids = torch.randint(1, 50, (3, 20), generator=torch.Generator().manual_seed(1))
        for options in ({}, {"tensor_mul": 0.3}):
            model = BertModel(config, add_pooling_layer=False).train()
            with torch.no_grad():
                model.embeddings.word_embeddings.weight[ids[1, 4]] = math.nan
            loss = lambda: model(input_ids=ids).last_hidden_state.sum()
            names = [name for name, p in model.named_parameters() if p.ndim == 2 and "encoder" in name]
            gradients(model, loss)
            exact = [bool(model.get_parameter(name).grad.isfinite().all()) for name in names]
            convert(model, 0.3, activations="packed", **options)
            gradients(model, loss)
            found = [bool(model.get_parameter(name).grad.isfinite().all()) for name in names]
            self.assertEqual(dict(zip(names, found)), dict(zip(names, exact)))
            self.assertFalse(any(found))

    def test_other_refusals_name_the_layer(self):
        model = wrap(linear()).double()
        convert(model, 1.0, bits=4)
        h = self.h.double()
        # Finite, but out of the range of packed rows.
        h[17, 3] = 1e300
        with self.assertRaisesRegex(Error, "^layer '0': .*17"):
            model(h)
        model = wrap(linear())
        sampling = convert(model, 0.3, source="cached")
        with self.assertRaisesRegex(Error, "^layer '0': .*sampling.batch"):
            model(self.h)
        with sampling.batch(range(TOKENS)):
            loss = model(self.h).sum()
        loss.backward(retain_graph=True)
        with self.assertRaisesRegex(Error, "second backward pass through the layer '0'"):
            loss.backward()


@emulated.needed
class OnTheEmulator(emulated.Emulated, Overflow, unittest.TestCase):
    device = "cpu"


@unittest.skipUnless(torch.cuda.is_available(), "torch finds no GPU here")
class OnAGpu(Overflow, unittest.TestCase):
    device = "cuda"


if __name__ == "__main__":
    unittest.main()
