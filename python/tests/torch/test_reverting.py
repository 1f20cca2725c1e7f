"""What is taken back, and what is refused: copies, parametrizations, hooks, and blocks that raise."""

import copy
import unittest

import torch
from torch import nn
from torch.distributed.fsdp import FSDPModule
from torch.nn.utils import parametrizations, parametrize
from transformers import GPT2Config, GPT2Model, LlamaConfig, LlamaModel

from wtacrs.torch import Error, SampledLinear, convert, revert

from .helpers import gradients, uneven


def model():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 32), nn.GELU(), nn.LayerNorm(32), nn.Linear(32, 32))


def kinds(model):
    return [type(module) for module in model.modules()]


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


class Blocks(unittest.TestCase):
    def test_a_with_block_reverts_at_its_end(self):
        m = model()
        with convert(m, activations="packed") as sampling:
            self.assertIs(type(m[0]), SampledLinear)
            self.assertEqual(list(sampling.layers), ["0", "3"])
        self.assertEqual(kinds(m), kinds(model()))
        # A second time does nothing.
        sampling.revert()
        with self.assertRaises(ZeroDivisionError), convert(m):
            1 / 0  # noqa: B018
        self.assertEqual(kinds(m), kinds(model()))

    def test_nothing_of_ours_stays(self):
        m = model()
        before = [set(vars(module)) for module in m.modules()]
        sampling = convert(m, activations="packed")
        m(uneven(100, 32)).sum().backward()
        sampling.revert()
        self.assertEqual([set(vars(module)) for module in m.modules()], before)
        self.assertFalse(m._forward_hooks or m._forward_pre_hooks)


class OthersClasses(unittest.TestCase):
    def refused(self, m, sampling, name, *others):
        before = kinds(m)
        with self.assertRaisesRegex(Error, f"^{name} is a .* now, whose class others have made"):
            sampling.revert()
        with self.assertRaisesRegex(Error, f"^{name} is a .* now"):
            revert(m)
        self.assertEqual(kinds(m), before)

    def test_parametrizations(self):
        h = uneven(100, 32)
        for register in (lambda layer: parametrize.register_parametrization(layer, "weight", Doubled()),
                         parametrizations.spectral_norm, parametrizations.weight_norm):  # fmt: skip
            m = model()
            sampling = convert(m, activations="packed", seed=1)
            register(m[3])
            self.refused(m, sampling, "3")
            # Sampled all the same.
            before = sampling.offset
            m(h).sum().backward()
            self.assertGreater(sampling.offset, before)
            parametrize.remove_parametrizations(m[3], "weight")
            sampling.revert()
            self.assertEqual(kinds(m), kinds(model()))

    def test_fully_shard(self):
        """Which puts a class of its own before that of a module."""
        m = model()
        sampling = convert(m, activations="packed")
        for place in (0, 2):
            own = type(m[place])
            m[place].__class__ = type(f"FSDP{own.__name__}", (FSDPModule, own), {})
            self.refused(m, sampling, place)
            m[place].__class__ = own
        sampling.revert()
        self.assertEqual(kinds(m), kinds(model()))


class Copies(unittest.TestCase):
    def test_a_copy_and_its_model_are_reverted_apart(self):
        for first in (True, False):
            m = model()
            sampling = convert(m, activations="packed")
            other = copy.deepcopy(m)
            revert(other) if first else sampling.revert()
            self.assertEqual(kinds(other if first else m), kinds(model()))
            self.assertIs(type((m if first else other)[0]), SampledLinear)
            self.assertEqual(set(vars((other if first else m)[0])), set(vars(model()[0])))
            sampling.revert() if first else revert(other)
            self.assertEqual(kinds(other), kinds(model()))
            self.assertEqual(kinds(m), kinds(model()))
            self.assertFalse(other._forward_hooks or other._forward_pre_hooks)

    def test_attention_of_copies(self):
        config = LlamaConfig(
            vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2
        )
        m = LlamaModel(config)
        convert(m, activations="packed")
        other = copy.deepcopy(m)
        self.assertNotEqual(other.config._attn_implementation, "sdpa")
        revert(other)
        self.assertEqual(other.config._attn_implementation, "sdpa")
        self.assertNotEqual(m.config._attn_implementation, "sdpa")
        revert(m)
        self.assertEqual(m.config._attn_implementation, "sdpa")

    def test_another_attention_that_was_chosen_since_stays(self):
        m = LlamaModel(
            LlamaConfig(vocab_size=50, hidden_size=32, intermediate_size=64, num_hidden_layers=1, num_attention_heads=2)
        )
        sampling = convert(m, activations="packed")
        m.set_attn_implementation("eager")
        sampling.revert()
        self.assertEqual(m.config._attn_implementation, "eager")

    def test_layers_of_transformers(self):
        m = GPT2Model(GPT2Config(vocab_size=50, n_embd=32, n_layer=1, n_head=2))
        before = kinds(m)
        convert(m)
        self.assertNotEqual(kinds(m), before)
        other = copy.deepcopy(m)
        revert(other)
        self.assertEqual(kinds(other), before)
        revert(m)
        self.assertEqual(kinds(m), before)


class Afterwards(unittest.TestCase):
    def test_the_report_says_so_and_nothing_is_set(self):
        m = model()
        sampling = convert(m, 0.3)
        sampling.revert()
        self.assertIn("it was reverted", str(sampling))
        self.assertTrue(str(sampling).startswith("no layer is sampled"))
        with self.assertRaisesRegex(Error, "was reverted: convert it again"):
            sampling.set(budget=0.2)


class Twice(unittest.TestCase):
    def test_it_is_refused(self):
        m = model()
        sampling = convert(m, 0.3)
        with self.assertRaisesRegex(
            Error, r"converted already \(0\): revert\(\) the Sampling first, or .* Sampling.set"
        ):
            convert(m, 0.1)
        with self.assertRaisesRegex(Error, "converted already"):
            convert(m, 1.0, bits="native", activations="packed")
        sampling.revert()
        sampling = convert(m, bits="native", budget=1.0, activations="packed")
        with self.assertRaisesRegex(Error, r"converted already \(1\)"):
            convert(m, 0.1)

    def test_parts_of_a_model(self):
        m = model()
        first, second = convert(m[0], 0.3, seed=1), convert(m[3], 0.1, seed=1)
        gradients(m, lambda: m(uneven(100, 32)).sum())
        self.assertEqual([list(s.guesses) for s in (first, second)], [[""], [""]])


if __name__ == "__main__":
    unittest.main()
