"""Layers that are exact because sampling would save nothing: narrow ones, short passes, inputs that are kept anyway."""

import unittest

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, T5Config, T5Model

from wtacrs.torch import SampledLinear, SavedBytes, convert
from wtacrs.torch.choosing.rules import InputsOfPass

from .helpers import uneven

WIDTH, WORDS = 64, 50
KEPT = "another operator keeps its input anyway, as torch's attention keeps its output and ReLU its result"


def kept(sampling):
    return sorted(name for name, sampled in sampling.sampled.items() if sampled.input_kept)


def step(model, h):
    model(h).square().sum().backward()
    model.zero_grad()


def held(model, h):
    with SavedBytes(model) as saved:
        model(h)
    return saved.total


def ids():
    return torch.randint(1, WORDS, (4, 32), generator=torch.Generator().manual_seed(1))


class Narrow(unittest.TestCase):
    def test_rows_of_few_bytes_and_second_halves_of_adapters(self):
        layers = {"narrow": (15, 8), "wide": (16, 8), "second": (64, 512), "up": (64, 511), "wider": (65, 4096)}
        model = nn.ModuleDict({name: nn.Linear(*sizes) for name, sizes in layers.items()})
        sampling = convert(model, 0.3)
        self.assertEqual(
            dict(sampling.left_exact),
            {
                "narrow": "a row of its input takes 60 bytes, and layers below 64 are exact",
                "second": "it makes 512 features of 64, as the second half of an adapter does",
            },
        )
        # Half the bytes.
        sampling = convert(nn.ModuleDict({"a": nn.Linear(31, 8), "b": nn.Linear(32, 8)}).bfloat16(), 0.3)
        self.assertEqual(list(sampling.layers), ["b"])


class Short(unittest.TestCase):
    def test_heads_that_read_a_handful_of_rows(self):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.GELU(), nn.Linear(WIDTH, WIDTH))
        sampling = convert(model, 0.3, seed=1)
        step(model, uneven(63, WIDTH))
        self.assertEqual((sampling.offset, sampling.guesses), (0, {}))
        reason = "a pass over 63 rows, and passes below 64 are exact"
        self.assertEqual(dict(sampling.left_exact), {"0": reason, "2": reason})
        self.assertEqual(sampling.report().exact[0].reason, reason)
        step(model, uneven(64, WIDTH))
        self.assertGreater(sampling.offset, 0)
        # From then on it is sampled, though not in every pass.
        self.assertEqual(sampling.report().exact, ())


class KeptInputs(unittest.TestCase):
    def test_what_torch_keeps_of_its_own(self):
        """The results of ReLU, tanh and sigmoid, and what a layer reads that is not sampled."""
        h = uneven(100, WIDTH)
        linear = lambda: nn.Linear(WIDTH, WIDTH)
        for between, expected in [
            (nn.ReLU(), ["2"]),
            (nn.Tanh(), ["2"]),
            (nn.Sigmoid(), ["2"]),
            (nn.GELU(), []),
            (nn.LayerNorm(WIDTH), []),
            (nn.Sequential(nn.ReLU(), nn.Dropout(0.0)), ["2"]),
            (nn.Sequential(nn.ReLU(), nn.Dropout(0.1)), []),
            (nn.Sequential(nn.ReLU(), nn.Flatten(0, 0)), ["2"]),
        ]:
            model = nn.Sequential(linear(), between, linear())
            exact = held(model, h)
            sampling = convert(model, 0.3, seed=1)
            step(model, h)
            self.assertEqual(kept(sampling), expected, between)
            if expected:
                # Without the rule it would hold the sample besides.
                self.assertEqual(exact - held(model, h), sampled_less(h))
                self.assertEqual(dict(sampling.left_exact), {"2": KEPT})
                self.assertEqual([group.reason for group in sampling.report().exact], [KEPT])
                self.assertIs(type(model[2]), SampledLinear)
            sampling.revert()
            self.assertFalse(model._forward_hooks or model._forward_pre_hooks)

    def test_the_setting_samples_them(self):
        model, h = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), uneven(100, WIDTH)
        sampling = convert(model, 0.3, sample_kept_inputs=True)
        for _ in range(2):
            step(model, h)
        self.assertEqual((kept(sampling), sampling.left_exact), ([], []))
        self.assertEqual(sorted(sampling.guesses), ["0", "2"])

    def test_an_input_that_another_layer_keeps(self):
        """Wherever that layer runs, before or after."""

        class Both(nn.Module):
            def __init__(self, sampled_first):
                super().__init__()
                self.sampled, self.skipped = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, WIDTH)
                self.order = [self.sampled, self.skipped][:: 1 if sampled_first else -1]

            def forward(self, h):
                return self.order[0](h) + self.order[1](h)

        for first in (True, False):
            model = Both(first)
            sampling = convert(model, 0.3, skip=["skipped"])
            step(model, uneven(100, WIDTH))
            self.assertEqual(kept(sampling), ["sampled"])

    def models(self):
        sizes = {"hidden_size": WIDTH, "intermediate_size": 2 * WIDTH, "num_hidden_layers": 2, "vocab_size": WORDS}
        for dropout in (0.0, 0.1):
            model = BertModel(BertConfig(**sizes, num_attention_heads=2, attention_probs_dropout_prob=dropout))
            yield f"bert, dropout {dropout}", model, lambda m: m(ids()).last_hidden_state, "attention.output.dense"
        for attention in ("sdpa", "eager"):
            config = LlamaConfig(**sizes, num_attention_heads=2, use_cache=False, attn_implementation=attention)
            yield f"llama, {attention}", LlamaModel(config), lambda m: m(ids()).last_hidden_state, "o_proj"
        for dropout in (0.0, 0.1):
            config = T5Config(
                vocab_size=WORDS, d_model=WIDTH, d_kv=32, d_ff=128, num_heads=2, num_layers=2, dropout_rate=dropout
            )
            run = lambda m: m(input_ids=ids(), decoder_input_ids=ids(), use_cache=False).last_hidden_state
            yield f"t5, dropout {dropout}", T5Model(config), run, "wo"

    def test_models_hold_no_more_than_exact_ones_in_any_category(self):
        for name, model, run, layer in self.models():
            with self.subTest(name):
                torch.manual_seed(0)
                model.train()
                for options in ({}, {"activations": "packed"}):
                    sampling = convert(model, 0.3, seed=1, **options)
                    run(model).sum().backward()
                    found = kept(sampling)
                    rule = held_by(model, run)
                    sampling.revert()
                    sampling = convert(model, 0.3, seed=1, sample_kept_inputs=True, **options)
                    run(model).sum().backward()
                    without = held_by(model, run)
                    sampling.revert()
                    expects = not options and name in ("bert, dropout 0.0", "llama, sdpa", "t5, dropout 0.0")
                    self.assertEqual(any(n.endswith(layer) for n in found), expects, found)
                    self.assertEqual(bool(found), expects)
                    # Each layer whose input is kept would hold its rows besides.
                    (self.assertLess if expects else self.assertEqual)(rule, without)

    def test_autocast_keeps_copies(self):
        """ReLU keeps its result in f32; an exact layer would keep its own copy in bf16."""
        model, h = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), uneven(100, WIDTH)
        for given, expected in ((lambda h: model[2](model[1](h)), []), (lambda h: model(h), ["2"])):
            sampling = convert(model, 0.3, seed=1)
            forward = model.forward
            model.forward = given
            with torch.autocast("cpu", dtype=torch.bfloat16):
                model.forward = forward if expected else given
                z = model(h.requires_grad_())
            z.float().sum().backward()
            self.assertEqual(kept(sampling), expected)
            del model.forward
            sampling.revert()

    def test_a_pass_without_gradients_or_in_eval_measures_nothing(self):
        model, h = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), uneven(100, WIDTH)
        sampling = convert(model, 0.3)
        with torch.no_grad():
            model(h)
        model.eval()(h)
        self.assertIsNone(sampling.state_dict()["kept_inputs"])
        step(model.train(), h)
        self.assertEqual(sampling.state_dict()["kept_inputs"], ["2"])

    def test_other_hooks_for_saved_tensors_go_on(self):
        """Those that keep a tensor, and those that put something in its place."""
        h = uneven(100, WIDTH)
        for save, restore, expected in (
            (lambda t: t.detach(), lambda t: t, ["2"]),
            (lambda t: (t.detach().clone(),), lambda t: t[0], []),
            (lambda t: t.detach().clone(), lambda t: t, []),
        ):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            model(h).square().sum().backward()
            exact = model[0].bias.grad.clone()
            model.zero_grad()
            sampling = convert(model, 0.3)
            calls = []
            with torch.autograd.graph.saved_tensors_hooks(
                lambda t: calls.append("save") or save(t), lambda t: calls.append("restore") or restore(t)
            ):
                z = model(h)
                loss = z.square().sum()
            loss.backward()
            self.assertEqual(calls.count("save"), calls.count("restore"))
            self.assertGreater(len(calls), 4)
            self.assertEqual(kept(sampling), expected)
            torch.testing.assert_close(model[0].bias.grad, exact, rtol=1e-4, atol=1e-3)

    def test_a_pass_that_raises(self):
        model, h = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), uneven(100, WIDTH)
        sampling = convert(model, 0.3)
        with self.assertRaises(RuntimeError):
            model(uneven(100, WIDTH + 1))
        self.assertIsNone(torch._C._autograd._top_saved_tensors_default_hooks(False))
        # One that fails late, after layers have read their inputs.
        model.append(nn.Linear(WIDTH + 1, WIDTH))
        with self.assertRaisesRegex(RuntimeError, "shapes cannot be multiplied"):
            model(h)
        del model[3]
        self.assertEqual(kept(sampling), [])
        step(model, h)
        self.assertEqual(kept(sampling), ["2"])

    def test_a_compiled_pass_does_not_see_the_hooks(self):
        model, h = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH)), uneven(100, WIDTH)
        measured = InputsOfPass(model)
        torch.compile(model, fullgraph=True, backend="aot_eager")(h).sum().backward()
        self.assertTrue(model._forward_hooks)
        self.assertFalse(measured.measured)

    def test_checkpointed_segments_are_sampled(self):
        class Segment(nn.Sequential):
            def forward(self, h):
                return checkpoint(super().forward, h, use_reentrant=False)

        model = Segment(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
        sampling = convert(model, 0.3)
        for _ in range(2):
            step(model, uneven(100, WIDTH).requires_grad_())
            self.assertEqual(kept(sampling), [])
            self.assertEqual(sampling.state_dict()["kept_inputs"], [])

    def test_a_run_goes_on_to_the_same_bits(self):
        def made(**options):
            torch.manual_seed(0)
            model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))
            return model, convert(model, 0.3, **options)

        def gradient(model):
            model.zero_grad()
            model(uneven(100, WIDTH)).sin().sum().backward()
            return torch.cat([p.grad.flatten() for p in model.parameters()])

        model, sampling = made(seed=1)
        gradient(model)
        state = sampling.state_dict()
        other, resumed = made(seed=2)
        resumed.load_state_dict(state)
        for _ in range(2):
            self.assertTrue(torch.equal(gradient(model), gradient(other)))
        self.assertEqual(resumed.state_dict()["kept_inputs"], ["2"])
        # A state from before the first pass, or from before there was a measurement.
        for early in ({"kept_inputs": None}, {}):
            other, resumed = made(seed=2)
            resumed.load_state_dict({**{k: v for k, v in state.items() if k != "kept_inputs"}, **early})
            gradient(other)
            self.assertEqual(kept(resumed), ["2"])

    def test_it_is_measured_again_on_request(self):
        model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Dropout(0.0), nn.Linear(WIDTH, WIDTH))
        sampling = convert(model, 0.3)
        step(model, uneven(100, WIDTH))
        self.assertEqual(kept(sampling), ["3"])
        model[2].p = 0.1
        sampling.measure_inputs()
        step(model, uneven(100, WIDTH))
        self.assertEqual((kept(sampling), sampling.left_exact), ([], []))


def sampled_less(h):
    """What the first layer saves of its input, in place of all of it."""
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH))
    exact = held(model, h)
    convert(model, 0.3, sample_kept_inputs=True)
    return exact - held(model, h)


def held_by(model, run):
    with SavedBytes(model) as saved:
        run(model)
    model.zero_grad()
    return saved.total


if __name__ == "__main__":
    unittest.main()
