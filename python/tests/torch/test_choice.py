"""Which layers are sampled, and that those which are not are named with the reason."""

import functools
import importlib.util
import types
import unittest
import warnings

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations
from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM
from transformers.pytorch_utils import Conv1D

from wtacrs.torch import Error, SampledLinear, SavedBytes, convert

from .helpers import gradients, unbiased, uneven

WIDTH, TOKENS = 32, 200


def block():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))


def reasons(sampling):
    """Why each module is exact, by its name."""
    return {name: group.reason for group in sampling.report().exact for name in group.names}


def quietly(model, *arguments, **options):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return convert(model, *arguments, **options)


class Hook:
    """As accelerate's `add_hook_to_module` and `remove_hook_from_module`."""

    calls = 0

    def add(self, module):
        module._old_forward = module.forward
        module._hf_hook = self

        def new_forward(module, *arguments, **named):
            self.calls += 1
            return module._old_forward(*arguments, **named)

        module.forward = functools.update_wrapper(functools.partial(new_forward, module), module._old_forward)

    @staticmethod
    def remove(module):
        module.forward = module._old_forward
        del module._hf_hook, module._old_forward


class PatchedForwards(unittest.TestCase):
    def setUp(self):
        self.model, self.h = block(), uneven(TOKENS, WIDTH)

    def loss(self):
        return self.model(self.h).sin().sum()

    def test_a_replaced_forward_is_left(self):
        layer = self.model[0]
        layer.forward = types.MethodType(lambda layer, x: 2 * F.linear(x, layer.weight, layer.bias), layer)
        exact = gradients(self.model, self.loss)
        sampling = convert(self.model, 0.3)
        self.assertEqual((list(sampling.layers), reasons(sampling)), (["2"], {"0": "its forward was replaced"}))
        self.assertNotIn("budget", repr(layer))
        found = gradients(self.model, self.loss)
        torch.testing.assert_close(found[1], exact[1])

    def test_one_that_is_replaced_after_convert_is_reported(self):
        sampling = convert(self.model, 0.3)
        self.assertEqual(reasons(sampling), {})
        self.model[2].forward = lambda x: x
        self.assertEqual(reasons(sampling), {"2": "its forward was replaced after convert"})
        self.assertEqual([group.names for group in sampling.report().sampled], [("0",)])

    def test_hooks_of_accelerate(self):
        """Before convert and after it: the hook runs, and so does the sampled layer."""
        for before in (True, False):
            model, hook = block(), Hook()
            if before:
                hook.add(model[0])
            sampling = convert(model, 0.3, seed=1)
            if not before:
                hook.add(model[0])
            self.assertEqual((list(sampling.layers), reasons(sampling)), (["0", "2"], {}))
            self.assertIn("budget=0.3", repr(model[0]))
            gradients(model, lambda: model(self.h).sum())
            self.assertEqual((hook.calls, sorted(sampling.guesses)), (1, ["0", "2"]))
            if before:
                # The hook goes first in one turn, the sampled class in the other.
                hook.remove(model[0])
                offset = sampling.offset
                gradients(model, lambda: model(self.h).sum())
                self.assertEqual(sampling.offset, 2 * offset)
            sampling.revert()
            self.assertIs(type(model[0]), nn.Linear)
            offset = sampling.offset
            model(self.h).sum().backward()
            self.assertEqual(sampling.offset, offset)
            self.assertEqual(hook.calls, 1 if before else 2)


class NotServed(unittest.TestCase):
    def test_each_kind_is_named_with_its_reason(self):
        class Own(nn.Linear):
            pass

        class Router(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight = nn.Parameter(torch.randn(4, WIDTH))

        class Experts(nn.Module):
            def __init__(self):
                super().__init__()
                self.up_proj, self.scale = (nn.Parameter(torch.randn(4, *sizes)) for sizes in ((8, 8), ()))

        model = nn.ModuleDict(
            {
                "linear": nn.Linear(WIDTH, WIDTH),
                "own": Own(WIDTH, WIDTH),
                "convolution": nn.Conv1d(WIDTH, WIDTH, 3),
                "bilinear": nn.Bilinear(WIDTH, WIDTH, WIDTH),
                "router": Router(),
                "experts": Experts(),
                "lazy": nn.LazyLinear(WIDTH),
                "normed": parametrizations.weight_norm(nn.Linear(WIDTH, WIDTH)),
                "attention": nn.MultiheadAttention(WIDTH, 2),
                "embedding": nn.Embedding(10, WIDTH),
                "norm": nn.LayerNorm((2, WIDTH)),
                "skipped": nn.Linear(WIDTH, WIDTH),
            }
        )
        sampling = quietly(model, 0.3, skip=["skipped"])
        self.assertEqual(list(sampling.layers), ["linear"])
        found = reasons(sampling)
        for name, words in {
            "own": "it is a subclass of nn.Linear, Own",
            "convolution": "its products are those of a convolution",
            "bilinear": "Bilinear is none of the modules that are served",
            "router": "Router is none of the modules",
            "experts": "Experts is none of the modules",
            "lazy": "it is lazy: run a forward pass before convert",
            "normed": "its weight is parametrized: convert first, then parametrize",
            "attention": "nn.MultiheadAttention multiplies Q, K and V by one function",
            "attention.out_proj": "nn.MultiheadAttention reads its weight without calling it",
            "skipped": "skip names it",
        }.items():
            self.assertIn(words, found.pop(name))
        self.assertEqual(found, {})

    def test_a_warning_where_less_than_half_is_served(self):
        model = nn.ModuleDict({"small": nn.Linear(32, 32), "large": nn.Conv2d(32, 32, 3), "attention": block()})
        with self.assertWarnsRegex(
            UserWarning, r"25% of the matrix weights' elements .* are large \(Conv2d\): its prod"
        ):
            convert(model, 0.3)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            # What skip names is not missed, nor what is frozen.
            for options in ({"skip": ["large"]}, {}):
                model = nn.ModuleDict({"small": nn.Linear(32, 32), "large": nn.Conv2d(32, 32, 3)})
                if not options:
                    model["large"].weight.requires_grad_(False)
                convert(model, 0.3, **options)

    def test_a_model_with_nothing_to_serve(self):
        with self.assertRaisesRegex(Error, "no nn.Linear to convert, nor Conv1D or experts"):
            convert(nn.Sequential(nn.Conv1d(4, 4, 3)), 0.3)


class TransformerEncoder(unittest.TestCase):
    def test_its_feed_forward_layers_are_sampled_in_training(self):
        torch.manual_seed(0)
        layer = nn.TransformerEncoderLayer(WIDTH, 2, 4 * WIDTH, dropout=0.0, batch_first=True, activation="gelu")
        model = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        h = uneven(8, 32, WIDTH)
        loss = lambda: model(h).sin().sum()
        exact = dict(zip(dict(model.named_parameters()), gradients(model, loss)))
        with SavedBytes(model) as before:
            model(h)
        sampling = quietly(model, 0.3, seed=1)
        layers = [f"layers.{i}.linear{j}" for i in (0, 1) for j in (1, 2)]
        self.assertEqual(list(sampling.layers), layers)
        found = dict(zip(exact, gradients(model, loss)))
        self.assertEqual(sorted(sampling.guesses), layers)
        with SavedBytes(model) as after:
            model(h)
        self.assertLess(after.total, before.total)
        for name, gradient in exact.items():
            same = torch.allclose(found[name], gradient, rtol=1e-4, atol=1e-4)
            self.assertEqual(same, name.removesuffix(".weight") not in layers, name)
        # Inference takes torch's fast path, which reads the weights.
        model.eval()
        with torch.no_grad():
            fast = model(h)
            sampling.revert()
            torch.testing.assert_close(fast, model(h))


class Conv1Ds(unittest.TestCase):
    def test_the_gradient_is_unbiased_and_all_else_exact(self):
        torch.manual_seed(0)
        model, h = nn.Sequential(Conv1D(48, WIDTH)), uneven(4, 60, WIDTH).requires_grad_()
        nn.init.normal_(model[0].weight, std=0.1)

        def passes():
            h.grad = None
            z = model(h)
            model.zero_grad()
            z.sin().sum().backward()
            return z.detach(), model[0].weight.grad.clone(), model[0].bias.grad.clone(), h.grad.clone()

        exact = passes()
        with SavedBytes(model) as before:
            model(h)
        sampling = convert(model, 0.3, seed=1)
        self.assertEqual(str(model[0])[:47], "Conv1D(nf=48, nx=32, budget=0.3, bits=4, design")
        z, _, bias, dh = passes()
        for found, right in ((z, exact[0]), (bias, exact[2]), (dh, exact[3])):
            torch.testing.assert_close(found, right, rtol=1e-4, atol=1e-4)
        self.assertEqual(model[0].weight.grad.shape, (WIDTH, 48))
        unbiased(self, lambda: passes()[1], exact[1])
        with SavedBytes(model) as after:
            model(h)
        self.assertLess(after.total, 0.2 * before.total)
        model.eval()
        self.assertTrue(torch.equal(passes()[1], exact[1]))
        sampling.revert()
        self.assertEqual(str(model[0]), "Conv1D(nf=48, nx=32)")

    def test_gpt2(self):
        torch.manual_seed(0)
        model = GPT2LMHeadModel(
            GPT2Config(vocab_size=100, n_embd=64, n_layer=2, n_head=2, bos_token_id=1, eos_token_id=2)
        )
        sampling = convert(model.train(), 0.3, seed=1)
        self.assertEqual(len(sampling.layers), 9)
        self.assertEqual({group.kind for group in sampling.report().sampled}, {"Conv1D", "nn.Linear"})
        ids = torch.randint(100, (4, 32))
        model(input_ids=ids, labels=ids).loss.backward()
        self.assertIn("transformer.h.0.attn.c_attn", sampling.guesses)
        self.assertGreater(sampling.report(4, 32).flops_served, 0.999)


class Adapters(unittest.TestCase):
    """As peft adds them: a module that has the layer inside, and two layers beside it."""

    class Adapted(nn.Module):
        def __init__(self, base, rank):
            super().__init__()
            self.base_layer = base.requires_grad_(False)
            self.lora_A = nn.Linear(base.in_features, rank, bias=False)
            self.lora_B = nn.Linear(rank, base.out_features, bias=False)

        def forward(self, x):
            return self.base_layer(x) + self.lora_B(self.lora_A(x))

    def model(self):
        return nn.ModuleDict({"query": nn.Linear(256, 256), "head": nn.Linear(256, 256)})

    def test_adapters_first_then_convert(self):
        for rank in (4, 8, 32):
            model = self.model()
            model["query"] = self.Adapted(model["query"], rank)
            sampling = convert(model, 0.3)
            self.assertIs(type(model["query"].lora_A), SampledLinear)
            self.assertRegex(reasons(sampling)["query.lora_B"], "a row of its input|the second half of an adapter")
            frozen = {name: group.frozen for group in sampling.report().sampled for name in group.names}
            self.assertEqual(frozen, {"query.base_layer": True, "query.lora_A": False, "head": False})

    def test_those_that_come_later_are_reported(self):
        model = self.model()
        sampling = convert(model, 0.3)
        model["query"] = self.Adapted(model["query"], 8)
        reason = "it came into the model after convert: add adapters first"
        self.assertEqual(reasons(sampling), {"query.lora_A": reason, "query.lora_B": reason})
        self.assertIs(type(model["query"].base_layer), SampledLinear)
        model["query"](uneven(100, 256)).sum().backward()
        self.assertEqual(sampling.offset, 0)

    @unittest.skipUnless(importlib.util.find_spec("peft"), "requires peft")
    def test_of_peft(self):
        import peft

        torch.manual_seed(0)
        sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
        ids = torch.randint(50, (4, 64))
        for adapters_first in (True, False):
            model = LlamaForCausalLM(LlamaConfig(vocab_size=50, use_cache=False, **sizes)).train()
            options = peft.LoraConfig(r=8, target_modules=["q_proj", "v_proj", "o_proj"], lora_dropout=0.0)
            if adapters_first:
                model = peft.get_peft_model(model, options)
                with SavedBytes(model) as before:
                    model(input_ids=ids)
                sampling = convert(model, 0.3, seed=1)
            else:
                sampling = convert(model, 0.3, seed=1)
                model = peft.get_peft_model(model, options)
            model(input_ids=ids).logits.sum().backward()
            report = sampling.report(4, 64)
            trained = [name for group in report.sampled if not group.frozen for name in group.names]
            self.assertEqual(len(trained), 4 if adapters_first else 0)
            if adapters_first:
                self.assertEqual({name.split(".")[-2] for name in trained}, {"lora_A"})
                self.assertEqual(report.held_before, before.linear)
                with SavedBytes(model) as after:
                    model(input_ids=ids)
                self.assertLess(abs(report.held_after / after.linear - 1), 0.02)
            else:
                (left,) = report.exact
                self.assertEqual((len(left.names), left.reason[:35]), (12, "it came into the model after conver"))

    @unittest.skipUnless(importlib.util.find_spec("accelerate"), "requires accelerate")
    def test_hooks_of_accelerate_itself(self):
        from accelerate.hooks import ModelHook, add_hook_to_module, remove_hook_from_module

        model = block()
        add_hook_to_module(model[0], ModelHook())
        sampling = convert(model, 0.3, seed=1)
        add_hook_to_module(model[2], ModelHook())
        offsets = []
        for _ in range(2):
            gradients(model, lambda: model(uneven(TOKENS, WIDTH)).sum())
            self.assertEqual((sorted(sampling.guesses), reasons(sampling)), (["0", "2"], {}))
            offsets.append(sampling.offset)
            for layer in (model[0], model[2]):
                remove_hook_from_module(layer)
        self.assertEqual(offsets[1], 2 * offsets[0])
        sampling.revert()
        self.assertEqual(str(model), str(block()))

    def test_layers_that_are_replaced(self):
        model = self.model()
        sampling = convert(model, 0.3)
        model["head"] = nn.Linear(256, 2)
        report = sampling.report()
        self.assertEqual([group.names for group in report.sampled], [("query",)])
        self.assertEqual([group.names for group in report.exact], [("head",)])


if __name__ == "__main__":
    unittest.main()
