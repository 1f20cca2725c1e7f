"""Experts of transformers' models whose weights are one parameter: their gradients, their memory, and what is left."""

import unittest

import torch
from torch import nn
from transformers import (
    GptOssConfig,
    MixtralConfig,
    MixtralForCausalLM,
    NemotronHConfig,
    Qwen2MoeConfig,
    Qwen2MoeForCausalLM,
)
from transformers.models.gpt_oss.modeling_gpt_oss import GptOssExperts
from transformers.models.mixtral.modeling_mixtral import MixtralExperts
from transformers.models.nemotron_h.modeling_nemotron_h import NemotronHExperts

from wtacrs.torch import SavedBytes, convert

from .helpers import gradients, unbiased, uneven

WIDTH, TOKENS, EXPERTS, TOP = 32, 300, 4, 2
SIZES = {"vocab_size": 50, "hidden_size": WIDTH, "intermediate_size": 48, "num_hidden_layers": 2}
HEADS = {"num_attention_heads": 2, "num_key_value_heads": 2, "use_cache": False}


def experts(kind):
    """Experts that are gated, gated with biases and transposed weights, and not gated."""
    torch.manual_seed(0)
    if kind is NemotronHExperts:
        config = NemotronHConfig(
            **{**SIZES, "num_hidden_layers": 1},
            n_routed_experts=EXPERTS,
            moe_intermediate_size=48,
            moe_latent_size=None,
        )
    elif kind is GptOssExperts:
        config = GptOssConfig(**SIZES, **HEADS, num_local_experts=EXPERTS, num_experts_per_tok=TOP, head_dim=16)
    else:
        config = MixtralConfig(**SIZES, **HEADS, num_local_experts=EXPERTS, num_experts_per_tok=TOP)
    config._experts_implementation = "eager"
    module = kind(config).train()
    for parameter in module.parameters():
        nn.init.normal_(parameter, std=0.2)
    return nn.ModuleDict({"experts": module})


class Passes:
    def __init__(self, model, tokens=TOKENS, idle=0):
        self.model = model
        self.x = uneven(tokens, WIDTH).requires_grad_()
        generator = torch.Generator().manual_seed(1)
        scores = torch.randn(tokens, EXPERTS, generator=generator)
        scores[:, :idle] = -9
        self.weights, self.index = scores.softmax(-1).topk(TOP)
        self.weights.requires_grad_()

    def loss(self):
        return self.model["experts"](self.x, self.index, self.weights).sin().sum()

    def gradients(self):
        """Of the parameters by name, of the input and of the routing weights; and the output's loss."""
        self.x.grad = self.weights.grad = None
        found = dict(zip(dict(self.model.named_parameters()), gradients(self.model, self.loss)))
        return {**found, "x": self.x.grad, "weights": self.weights.grad, "loss": self.loss().detach()}


class Gradients(unittest.TestCase):
    def test_weights_are_estimated_and_all_else_is_exact(self):
        for kind in (MixtralExperts, GptOssExperts, NemotronHExperts):
            with self.subTest(kind.__name__):
                model = experts(kind)
                passes = Passes(model)
                exact = passes.gradients()
                sampling = convert(model, 0.3, seed=1)
                found = passes.gradients()
                projections = [
                    "experts.up_proj" if kind is NemotronHExperts else "experts.gate_up_proj",
                    "experts.down_proj",
                ]
                self.assertEqual(list(sampling.layers), projections)
                self.assertEqual(sorted(sampling.guesses), sorted(projections))
                for name, gradient in exact.items():
                    if name in projections:
                        self.assertFalse(torch.allclose(found[name], gradient, rtol=1e-3))
                    else:
                        torch.testing.assert_close(found[name], gradient, rtol=1e-4, atol=1e-4)
                for name in projections:
                    unbiased(self, lambda: passes.gradients()[name], exact[name], draws=150)
                sampling.revert()
                again = passes.gradients()
                self.assertTrue(all(torch.equal(again[name], exact[name]) for name in exact))

    def test_all_rows_packed(self):
        model = experts(MixtralExperts)
        passes = Passes(model)
        exact = passes.gradients()
        convert(model, 1.0, bits=8)
        for name, gradient in passes.gradients().items():
            self.assertLess((gradient - exact[name]).norm(), 0.02 * exact[name].norm(), name)

    def test_experts_with_few_rows_and_without_rows(self):
        model = experts(MixtralExperts)
        for passes in (Passes(model, tokens=60), Passes(model, idle=2)):
            exact = passes.gradients()
            sampling = convert(model, 0.3, seed=1)
            found = passes.gradients()
            if len(passes.x) == 60:
                self.assertEqual(sampling.offset, 0)
                torch.testing.assert_close(found, exact)
            for name in ("experts.gate_up_proj", "experts.down_proj"):
                still = exact[name].flatten(1).norm(dim=1) == 0
                self.assertEqual(still.sum(), 2 if len(passes.x) > 60 else 0)
                self.assertFalse(found[name][still].any())
            # Few rows now and then are no news.
            self.assertEqual(sampling.left_exact, [])
            sampling.revert()

    def test_tokens_of_other_ranks(self):
        """transformers marks experts that another rank serves by a number past the last one."""
        model = experts(MixtralExperts)
        passes = Passes(model)
        passes.index[::3] = EXPERTS
        exact = passes.gradients()
        convert(model, 1.0, bits=8)
        found = passes.gradients()
        for name in exact:
            torch.testing.assert_close(found[name], exact[name], rtol=0.1, atol=0.05 * exact[name].abs().max().item())

    def test_one_projection_alone(self):
        for options in ({"skip": ["*.down_proj"]}, {"layers": {"*.gate_up_proj": {"budget": 1.0, "bits": "native"}}}):
            model = experts(MixtralExperts)
            passes = Passes(model)
            exact = passes.gradients()
            sampling = convert(model, 0.3, **options)
            (name,) = sampling.layers
            (left,) = sampling.report().exact
            self.assertEqual(
                (left.kind, {name, *left.names}), ("experts", {"experts.gate_up_proj", "experts.down_proj"})
            )
            found = passes.gradients()
            (other,) = {"experts.gate_up_proj", "experts.down_proj"} - {name}
            torch.testing.assert_close(found[other], exact[other], rtol=1e-4, atol=1e-3)
            self.assertFalse(torch.allclose(found[name], exact[name], rtol=1e-3))

    def test_frozen_eval_and_no_grad(self):
        model = experts(MixtralExperts)
        passes = Passes(model)
        exact = passes.gradients()
        sampling = convert(model, 0.3)
        with torch.no_grad():
            passes.loss()
        model.eval()
        found = passes.gradients()
        self.assertTrue(all(torch.equal(found[name], exact[name]) for name in exact))
        self.assertEqual(sampling.offset, 0)

    def test_autocast_and_half_precision(self):
        for dtype, autocast in ((torch.bfloat16, False), (torch.float32, True)):
            model = experts(MixtralExperts).to(dtype)
            passes = Passes(model)
            passes.x = passes.x.detach().to(dtype).requires_grad_()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                convert(model, 1.0, bits=8)
                passes.gradients()
            self.assertIs(model["experts"].down_proj.grad.dtype, dtype)


class Memory(unittest.TestCase):
    def test_only_the_rows_are_held(self):
        model = experts(MixtralExperts)
        passes = Passes(model, tokens=2000)
        with SavedBytes(model) as before:
            passes.loss()
        convert(model, 0.3)
        with SavedBytes(model) as after:
            passes.loss()
        # Each of TOP experts reads a token's row and makes its own.
        inputs = 4 * TOP * 2000 * (WIDTH + 48)
        self.assertLess(after.total, before.total - 0.85 * inputs)


class Models(unittest.TestCase):
    def test_experts_and_what_is_beside_them(self):
        for kind, config in (
            (MixtralForCausalLM, MixtralConfig(num_local_experts=EXPERTS, **SIZES, **HEADS)),
            (
                Qwen2MoeForCausalLM,
                Qwen2MoeConfig(
                    num_experts=EXPERTS,
                    num_experts_per_tok=TOP,
                    moe_intermediate_size=WIDTH,
                    shared_expert_intermediate_size=48,
                    **SIZES,
                    **HEADS,
                ),
            ),
        ):
            torch.manual_seed(0)
            model = kind(config).train()
            sampling = convert(model, 0.3, seed=1)
            ids = torch.randint(1, 50, (8, 64))
            model(input_ids=ids, labels=ids).loss.backward()
            report = sampling.report(8, 64)
            groups = {(g.kind, g.matrices) for g in report.sampled}
            self.assertEqual(groups, {("nn.Linear", 1), ("experts", EXPERTS)})
            # The router multiplies by a parameter of its own, and keeps what it reads.
            routers = [g for g in report.exact if g.kind.endswith("Router")]
            self.assertEqual([len(g.names) for g in routers], [2])
            kept = {name.rpartition(".")[2] for name, s in sampling.sampled.items() if s.input_kept}
            shared = {"gate_proj", "up_proj", "shared_expert_gate"} if kind is Qwen2MoeForCausalLM else set()
            self.assertEqual(kept, {"o_proj"} | shared)

    def test_cached_norms_are_not_for_experts(self):
        model = nn.ModuleDict({"experts": experts(MixtralExperts)["experts"], "head": nn.Linear(256, 256)})
        sampling = convert(model, 0.3, source="cached")
        self.assertEqual(list(sampling.layers), ["head"])
        (left,) = sampling.report().exact
        self.assertIn("experts read rows in an order of their own", left.reason)


if __name__ == "__main__":
    unittest.main()
