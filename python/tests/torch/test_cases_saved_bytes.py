"""What `SavedBytes` counts under autocast, in calls with keywords, and of modules like nn.Linear."""

import unittest

import torch
from torch import nn
from transformers import MixtralConfig, MixtralModel
from transformers.pytorch_utils import Conv1D

from wtacrs.torch import SavedBytes, convert

from .helpers import INPUTS, OUTPUTS, TOKENS, Attention, always_sampled, convert_native, uneven, wrap

HALF, FLOAT = 2, 4


def measured(model, *arguments, autocast=False, **named):
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast), SavedBytes(model) as saved:
        model(*arguments, **named)
    return {name: count for name, count in saved.by_operator.items() if count}


class WithNorm(Attention):
    def __init__(self):
        super().__init__()
        self.norm = nn.LayerNorm(INPUTS)

    def forward(self, h):
        return self.query(h := self.norm(h)) + self.key(h) + self.value(h)


class Autocast(unittest.TestCase):
    def setUp(self):
        self.enterContext(always_sampled())
        self.h = uneven(TOKENS, INPUTS)

    def test_each_layers_copy_of_its_input(self):
        """Q, K and V cast one f32 tensor, and torch keeps all three copies, and not the tensor."""
        found = measured(WithNorm(), self.h, autocast=True)
        self.assertEqual(found["linear layers"], 3 * HALF * TOKENS * INPUTS)
        # The input of the norm, which saves it, is f32; its output is what is cast.
        self.assertEqual(found["norms"], FLOAT * TOKENS * (INPUTS + 2))
        self.assertEqual(found["copies of weights"], 3 * HALF * INPUTS * OUTPUTS)

    def test_an_input_that_others_keep_in_its_own_dtype(self):
        """A f32 tensor that a GELU keeps is not the one that the layer before it keeps a copy of."""
        model = nn.Sequential(nn.Linear(INPUTS, OUTPUTS), nn.GELU())
        h = self.h.clone().requires_grad_()

        class Both(nn.Module):
            def __init__(self):
                super().__init__()
                self.layer, self.act = model

            def forward(self, h):
                return self.layer(h).sum() + self.act(h).sum()

        found = measured(Both(), h, autocast=True)
        self.assertEqual(found["linear layers"], HALF * TOKENS * INPUTS)
        self.assertEqual(found["activations"], FLOAT * TOKENS * INPUTS)
        # Without autocast it is the same tensor, and counts for the layer.
        found = measured(Both(), h)
        self.assertEqual(found, {"linear layers": FLOAT * TOKENS * INPUTS})

    def test_square_weights(self):
        """As many tokens as features: shapes do not tell a weight from an input."""
        for frozen in (False, True):
            model = nn.Sequential(nn.Linear(64, 64))
            model[0].weight.requires_grad_(not frozen)
            found = measured(model, torch.randn(64, 64, requires_grad=True), autocast=True)
            self.assertEqual(found["copies of weights"], HALF * 64 * 64)
            self.assertEqual(found.get("linear layers", 0), 0 if frozen else HALF * 64 * 64)

    def test_sampled_layers(self):
        model = WithNorm()
        convert(model, 0.3)
        found = measured(model, self.h, autocast=True)
        self.assertNotIn("copies of weights", found)
        self.assertLess(found["linear layers"], 0.4 * HALF * TOKENS * INPUTS)


class Calls(unittest.TestCase):
    def test_keywords(self):
        h = torch.randn(TOKENS, INPUTS, requires_grad=True)
        layer = nn.Linear(INPUTS, OUTPUTS)

        class ByName(nn.Module):
            def __init__(self):
                super().__init__()
                self.act, self.layer = nn.GELU(), layer

            def forward(self, h):
                return self.act(input=h).sum() + self.layer(input=h).sum()

        # GELU keeps the layer's input, which counts for the layer, however it is passed.
        self.assertEqual(measured(ByName(), h), {"linear layers": FLOAT * TOKENS * INPUTS})

    def test_a_sampled_layer_by_keyword(self):
        self.enterContext(always_sampled())
        h = uneven(TOKENS, INPUTS)
        model = wrap(nn.Linear(INPUTS, OUTPUTS))
        sampling = convert_native(model, 1.0)
        found = measured(model[0], input=h)
        self.assertGreater(sampling.offset, 0)
        self.assertEqual(set(found), {"linear layers"})
        z = model[0](input=h)
        z.sum().backward()
        torch.testing.assert_close(model[0].weight.grad, h.sum(0).expand(OUTPUTS, -1), rtol=1e-4, atol=1e-4)
        model.eval()
        torch.testing.assert_close(model[0](input=h), z)

    def test_conv1d(self):
        h = torch.randn(TOKENS, INPUTS, requires_grad=True)
        self.assertEqual(measured(Conv1D(OUTPUTS, INPUTS), h), {"linear layers": FLOAT * TOKENS * INPUTS})
        found = measured(Conv1D(OUTPUTS, INPUTS), x=h, autocast=True)
        expected = {"linear layers": HALF * TOKENS * INPUTS, "copies of weights": HALF * OUTPUTS * INPUTS}
        self.assertEqual(found, expected)

    def test_experts(self):
        """What they keep counts for linear layers before and after convert, activations aside."""
        config = MixtralConfig(
            hidden_size=64, intermediate_size=96, num_hidden_layers=1, num_local_experts=2, num_experts_per_tok=2,
            vocab_size=50, num_attention_heads=4, num_key_value_heads=2, use_cache=False,
        )  # fmt: skip
        experts = MixtralModel(config).layers[0].mlp.experts
        h, ids, weights = uneven(100, 64), torch.tensor([[0, 1]] * 100), torch.ones(100, 2)
        exact = measured(experts, h, ids, weights)
        self.assertGreater(exact["linear layers"], 2 * FLOAT * 100 * (64 + 96))
        self.assertNotIn("other", exact)
        convert(experts, 0.3)
        self.assertLess(measured(experts, h, ids, weights)["linear layers"], exact["linear layers"])

    def test_the_meta_device(self):
        """Whose tensors all have the address 0."""
        model = nn.Sequential(nn.Linear(64, 64, device="meta"), nn.GELU(), nn.Linear(64, 64, device="meta"))
        found = measured(model, torch.empty(100, 64, device="meta"))
        self.assertEqual(found, {"linear layers": 2 * FLOAT * 100 * 64, "activations": FLOAT * 100 * 64})

    def test_what_is_left_in_a_backward_pass(self):
        model = nn.Sequential(*(nn.Linear(64, 64) for _ in range(4)))
        h = torch.randn(100, 64)
        with SavedBytes(model) as saved:
            z = model(h)
        left = []
        for layer in model:
            layer.weight.register_post_accumulate_grad_hook(lambda _: left.append(saved.left()))
        self.assertEqual(saved.left(), saved.total)
        z.sum().backward()
        one = FLOAT * 100 * 64
        # A layer's input goes once its gradients are made, and the first one's is the caller's.
        self.assertEqual((saved.total, sorted(left, reverse=True)), (4 * one, left))
        self.assertEqual((left[0] >= 3 * one, left[-1] <= 2 * one), (True, True))
        del z
        self.assertEqual(saved.left(), one)
        del h
        self.assertEqual((saved.left(), SavedBytes(model).left()), (0, 0))


if __name__ == "__main__":
    unittest.main()
