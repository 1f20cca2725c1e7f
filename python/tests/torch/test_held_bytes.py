"""What models of real widths hold for the backward pass, by operator, and saved tensors that are packed by hooks."""

import importlib.util
import pathlib
import tempfile
import unittest

import torch
from torch import nn
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, T5Config, T5Model

from wtacrs.torch import Error, SavedBytes, convert

from .helpers import gradients, uneven

LENGTH, BATCH, WORDS = 128, 2, 200


def bert():
    return BertModel(BertConfig(num_hidden_layers=2, vocab_size=WORDS), add_pooling_layer=False)


def t5():
    widths = {"d_model": 768, "d_kv": 64, "d_ff": 3072, "num_heads": 12, "num_layers": 2}
    return T5Model(T5Config(vocab_size=WORDS, dropout_rate=0.1, **widths))


def llama():
    widths = {"hidden_size": 768, "intermediate_size": 2048, "num_attention_heads": 12, "num_key_value_heads": 4}
    return LlamaModel(LlamaConfig(vocab_size=WORDS, num_hidden_layers=2, use_cache=False, **widths))


def forward(model):
    ids = torch.randint(1, WORDS, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    options = {"decoder_input_ids": ids, "use_cache": False} if isinstance(model, T5Model) else {}
    return model(input_ids=ids, **options).last_hidden_state


EXACT = {"bits": "native", "activations": "exact"}
SAMPLED = {**EXACT, "tensor_mul": 0.3}
EIGHT = {"bits": 4, "activations": "packed"}
FOUR = {"bits": 4, "activations": "packed", "activation_bits": 4}


class RealWidths(unittest.TestCase):
    """Sequences of 128 tokens, 0.3 of the rows, dropout 0.1 (none in Llama)."""

    def shares(self, make, bounds, autocast=False):
        torch.manual_seed(0)
        model = make().train()

        def measured():
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), SavedBytes(model) as saved:
                output = forward(model)
            output.float().sum().backward()
            model.zero_grad()
            return saved

        exact = measured()
        # Copies of weights flatter the others, which hold none.
        whole = exact.total - exact.by_operator["copies of weights"]
        for options, most in bounds:
            sampling = convert(model, 0.3, seed=1, **options)
            share = measured().total / whole
            sampling.revert()
            with self.subTest(make.__name__, **options):
                self.assertTrue(0.75 * most < share <= most, share)

    def test_bert(self):
        self.shares(bert, [(EXACT, 0.55), (SAMPLED, 0.47), (EIGHT, 0.14), (FOUR, 0.10)])

    def test_t5(self):
        self.shares(t5, [(EXACT, 0.41), (SAMPLED, 0.34), (EIGHT, 0.09), (FOUR, 0.07)])

    def test_llama(self):
        self.shares(llama, [(EIGHT, 0.16), (FOUR, 0.11)])

    def test_autocast(self):
        for make, most in ((bert, 0.17), (t5, 0.12), (llama, 0.23)):
            self.shares(make, [(EIGHT, most)], autocast=True)


class ByOperator(unittest.TestCase):
    def measured(self):
        torch.manual_seed(0)
        model = nn.Sequential(nn.LayerNorm(256), nn.Linear(256, 512), nn.GELU(), nn.Linear(512, 256), nn.Dropout(0.5))
        x = torch.randn(100, 256).requires_grad_()
        measurements = []
        for options in (None, EIGHT):
            if options:
                convert(model, 0.3, **options)
            with SavedBytes(model) as saved:
                model(x)
            measurements.append(saved)
        return measurements

    def test_each_storage_counts_once(self):
        exact, packed = self.measured()
        tokens, width = 100, 4 * 256
        expected = {
            "linear layers": 3 * tokens * width,
            "activations": 2 * tokens * width,
            "norms": tokens * (width + 8),
            "dropout": tokens * width,
        }
        self.assertEqual({name: count for name, count in exact.by_operator.items() if count}, expected)
        self.assertEqual(exact.total, sum(expected.values()))
        self.assertEqual(exact.linear, expected["linear layers"])
        self.assertEqual(packed.total, sum(packed.by_operator.values()))
        self.assertLess(packed.by_operator["activations"], 0.27 * expected["activations"])

    def test_copies_of_weights(self):
        model = nn.Sequential(nn.Linear(64, 32))
        with torch.autocast("cpu", dtype=torch.bfloat16), SavedBytes(model) as saved:
            model(torch.randn(32, 64).requires_grad_())
        self.assertEqual(saved.by_operator["copies of weights"], 2 * 64 * 32)
        self.assertEqual(saved.linear, 2 * 32 * 64)

    def test_the_table(self):
        exact, packed = self.measured()
        lines = packed.table("packed", exact=exact).splitlines()
        self.assertEqual(lines[0].split(), ["exact", "packed"])
        self.assertEqual([line.split("  ")[0] for line in lines[1:]], [
            "linear layers", "activations", "norms", "dropout", "all",
        ])  # fmt: skip
        self.assertEqual(lines[-1].split()[3], "1.000")
        self.assertIn(f"{packed.total / exact.total:.3f}", lines[-1])

    @unittest.skipUnless(importlib.util.find_spec("matplotlib"), "requires matplotlib")
    def test_the_figure(self):
        exact, packed = self.measured()
        with tempfile.TemporaryDirectory() as folder:
            file = pathlib.Path(folder) / "held.svg"
            packed.figure(file, "packed", exact=exact)
            self.assertIn("norms", file.read_text())


class Functional(nn.Module):
    """What no module stands for."""

    def __init__(self):
        super().__init__()
        self.up, self.down = nn.Linear(64, 256), nn.Linear(256, 64)

    def forward(self, x):
        a = self.up(x)
        return self.down(a.sigmoid() * a.view(-1, 256).tanh())


class Hooks(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model, self.x = Functional(), uneven(128, 64).requires_grad_()

    def loss(self):
        return self.model(self.x).square().mean()

    def test_large_tensors_are_packed_once(self):
        exact = gradients(self.model, self.loss)
        sampling = convert(self.model, 1.0, activations="packed", seed=1)
        before = sampling.offset
        gradients(self.model, self.loss)
        rows = sampling.offset - before
        with sampling.packed_saved_tensors():
            found = gradients(self.model, self.loss)
        # The results of sigmoid and tanh, which their product reads as well; the output is a third storage.
        self.assertEqual(sampling.offset - before - 2 * rows, (2 * 128 * 256 + 128 * 64) // 1024)
        for this, other in zip(found, exact):
            self.assertLess((this - other).norm(), 0.15 * other.norm())

    def test_what_is_small_or_a_parameter_stays(self):
        sampling = convert(self.model, 1.0, activations="packed", seed=1)
        before = sampling.offset
        with sampling.packed_saved_tensors():
            scaled = self.x[:4].detach().sin() * self.model.up.weight[:4, :4].exp()[:, :1]
            scaled.sum().backward()
        self.assertEqual(sampling.offset, before)

    def test_views_of_a_storage(self):
        convert(self.model, 1.0, activations="packed", seed=1).revert()
        sampling = convert(self.model, 1.0, activations="packed", seed=1)
        y = torch.randn(96, 64)
        factors = [torch.ones(96, 64, requires_grad=True) for _ in range(3)]
        with sampling.packed_saved_tensors(bits=8):
            product = factors[0] * y + (factors[1].T * y.T).T + (factors[2].view(64, 96) * y.view(64, 96)).view(96, 64)
        product.sum().backward()
        for factor in factors:
            torch.testing.assert_close(factor.grad, y, rtol=0, atol=0.03)
        self.assertEqual(sampling.offset, 96 * 64 // 1024)

    def test_it_belongs_to_packed_activations(self):
        sampling = convert(self.model, activations="exact")
        with self.assertRaisesRegex(Error, "packed_saved_tensors belongs to"), sampling.packed_saved_tensors():
            pass


if __name__ == "__main__":
    unittest.main()
