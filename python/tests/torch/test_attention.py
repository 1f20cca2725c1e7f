"""Attention of transformers' models: outputs and gradients beside those of the implementations that were there."""

import copy
import unittest
from unittest import mock

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import (
    AttentionInterface,
    BertConfig,
    BertModel,
    Gemma2Config,
    Gemma2Model,
    LlamaConfig,
    LlamaModel,
    T5Config,
    T5Model,
)
from transformers.masking_utils import ALL_MASK_ATTENTION_FUNCTIONS

from wtacrs.torch import SavedBytes, convert
from wtacrs.torch.attention import interface as served
from wtacrs.torch.attention import scaled_dot_product
from wtacrs.torch.operators.recognition import kind_of

WORDS, LENGTH, BATCH = 50, 20, 3


def small(layers=2, width=64):
    return {
        "vocab_size": WORDS, "hidden_size": width, "intermediate_size": 3 * width // 2, "num_hidden_layers": layers,
    }  # fmt: skip


def bert(dropout=0.0, layers=2, width=64, **options):
    torch.manual_seed(0)
    config = BertConfig(
        **small(layers, width), num_attention_heads=4, hidden_dropout_prob=0.0, attention_probs_dropout_prob=dropout,
        attn_implementation=options.pop("implementation", "sdpa"), **options,
    )  # fmt: skip
    return BertModel(config, add_pooling_layer=False).train()


def llama(dropout=0.0, layers=2, width=64, **options):
    torch.manual_seed(0)
    config = LlamaConfig(
        **small(layers, width), num_attention_heads=8, num_key_value_heads=2, attention_dropout=dropout,
        use_cache=False, attn_implementation=options.pop("implementation", "sdpa"), **options,
    )  # fmt: skip
    return LlamaModel(config).train()


def t5(dropout=0.0, layers=2, width=64, **options):
    torch.manual_seed(0)
    config = T5Config(
        vocab_size=WORDS, d_model=width, d_kv=width // 4, d_ff=3 * width // 2, num_heads=4, num_layers=layers,
        dropout_rate=dropout, attn_implementation=options.pop("implementation", "sdpa"), **options,
    )  # fmt: skip
    model = T5Model(config).train()
    for name, p in model.named_parameters():
        if "relative_attention_bias" in name:
            nn.init.normal_(p)
    return model


MODELS = {"bert": bert, "llama": llama, "t5": t5}


def batch(padding=None):
    ids = torch.randint(1, WORDS, (BATCH, LENGTH), generator=torch.Generator().manual_seed(1))
    mask = torch.ones_like(ids)
    if padding == "right":
        mask[0, 12:] = mask[1, 5:] = 0
    if padding == "left":
        mask[0, :8] = mask[2, :3] = 0
    return ids, mask


def run(model, padding=None, ids=None, **options):
    given, mask = batch(padding)
    ids = given if ids is None else ids
    if isinstance(model, T5Model):
        options |= {"decoder_input_ids": ids, "decoder_attention_mask": mask, "use_cache": False}
    y = model(input_ids=ids, attention_mask=mask, **options).last_hidden_state
    return y * mask[..., None]


def gradients(model, *arguments, **options):
    model.zero_grad()
    y = run(model, *arguments, **options)
    y.float().sin().sum().backward()
    return [y.detach(), *(p.grad.clone() for p in model.parameters() if p.grad is not None)]


def converted(model, mode="exact", **options):
    """With everything but attention as it was."""
    options = {"skip": lambda name, module: kind_of(module) is not None, **options}
    return convert(model, 1.0, bits="native", activations=mode, seed=2, **options)


def probabilities_always():
    """As if every model had dropout, so that gradients can be compared with exact ones."""
    return mock.patch.object(served.Attention, "saves_probabilities", lambda *_: True)


class Gradients(unittest.TestCase):
    draws, draws_of_samples = 2000, 200

    def close(self, found, expected, relative):
        torch.testing.assert_close(found[0], expected[0], rtol=1e-4, atol=1e-4)
        for this, exact in zip(found[1:], expected[1:]):
            # A bias of all keys changes nothing: its exact gradient is rounding.
            self.assertLessEqual((this - exact).norm(), relative * exact.norm() + 1e-3)

    def every(self, relative, mode):
        for name, make in MODELS.items():
            for implementation in ("sdpa", "eager"):
                for padding in (None, "right", "left"):
                    with self.subTest(name, implementation=implementation, padding=padding, mode=mode):
                        model = make(implementation=implementation)
                        expected = gradients(model, padding)
                        converted(model, mode)
                        self.close(gradients(model, padding), expected, relative)

    def test_exact(self):
        self.every(1e-4, "exact")

    def test_packed(self):
        self.every(0.05, "packed")

    def test_probabilities(self):
        with probabilities_always():
            self.every(1e-4, "exact")
            self.every(0.1, "packed")

    def test_autocast(self):
        for name, make in MODELS.items():
            for mode, relative in (("exact", 0.05), ("packed", 0.1)):
                with self.subTest(name, mode=mode), torch.autocast("cpu", dtype=torch.bfloat16):
                    model = make()
                    expected = gradients(model, "right")
                    converted(model, mode)
                    found = gradients(model, "right")
                    self.assertEqual([g.dtype for g in found], [g.dtype for g in expected])
                    torch.testing.assert_close(found[0], expected[0], rtol=0.05, atol=0.1)
                    for this, exact in zip(found[1:], expected[1:]):
                        self.assertLessEqual((this - exact).norm(), relative * exact.norm() + 1e-2)

    def test_halves(self):
        for make in MODELS.values():
            model = make().to(torch.bfloat16)
            expected = gradients(model, "right")
            converted(model, "packed")
            with probabilities_always():
                found = gradients(model, "right")
            torch.testing.assert_close(found[0].float(), expected[0].float(), rtol=0.05, atol=0.1)

    def test_cross_attention_of_another_length(self):
        model = t5(dropout=0.0)
        ids, _ = batch()
        once = lambda: model(input_ids=ids, decoder_input_ids=ids[:, :7], use_cache=False).last_hidden_state
        expected = once()
        converted(model, "packed")
        found = once()
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
        found.sum().backward()

    def test_samples(self):
        """Attention's products from a share of Q, K and V: what is left of the noise after many draws."""
        for name, make in MODELS.items():
            for mode in ("exact", "packed"):
                with probabilities_always(), self.subTest(name, mode=mode):
                    model = make()
                    expected = gradients(model, "right")
                    converted(model, mode, tensor_mul=0.6)
                    draws = [gradients(model, "right") for _ in range(self.draws_of_samples)]
                    torch.testing.assert_close(draws[0][0], expected[0], rtol=1e-4, atol=1e-4)
                    for exact, *found in list(zip(expected, *draws))[1:]:
                        errors = torch.stack(found) - exact
                        noise = errors.flatten(1).norm(dim=1).square().mean()
                        self.assertLess(errors.mean(0).norm().square(), 3 * noise / len(draws) + 1e-6)

    def test_unbiased(self):
        """Of every parameter, that of T5's position bias as well, with everything packed in 4 bits."""
        draws = self.draws
        for name, make in MODELS.items():
            # T5's decoder has layers of its own.
            model = make(layers=1 if make is t5 else 2, width=32)
            with probabilities_always(), self.subTest(name):
                exact = gradients(model, "right")[1:]
                convert(model, 1.0, bits=4, activations="packed", activation_bits=4, seed=2)
                sums = [torch.zeros_like(g, dtype=torch.float64) for g in exact]
                squares = [torch.zeros_like(s) for s in sums]
                for _ in range(draws):
                    for total, square, found, true in zip(sums, squares, gradients(model, "right")[1:], exact):
                        total += found.double() - true
                        square += (found.double() - true).square()
                for total, square, true in zip(sums, squares, exact):
                    deviation = (square / draws).sqrt()
                    rounding = 1e-5 * true.abs().max()
                    z = (total / draws).abs().sub(rounding).clamp(min=0) / (deviation / draws**0.5 + 1e-30)
                    self.assertLess(z.max(), 6)


class SumsOfRows(torch.autograd.Function):
    """Attention that saves the logarithm of each row's sum as cuDNN's kernel does, with as many axes as a matrix."""

    @staticmethod
    def forward(ctx, query, key, value, restored):
        scores = query @ key.transpose(2, 3)
        sums = scores.logsumexp(3, keepdim=True)
        ctx.restored = restored
        ctx.save_for_backward(query, sums)
        restored.append(sums.clone())
        return ((scores - sums).exp() @ value).transpose(1, 2)

    @staticmethod
    def backward(ctx, doutput):
        ctx.restored.extend(ctx.saved_tensors)
        return *[doutput.transpose(1, 2)] * 3, None


class Kernels(unittest.TestCase):
    def test_sums_of_rows_are_not_packed(self):
        restored = []
        kernel = lambda self, query, key, value, mask: SumsOfRows.apply(query, key, value, restored)
        query = torch.randn(2, 4, 128, 16).requires_grad_()
        operators = convert(nn.Sequential(nn.Dropout(0.1)), activations="packed", seed=1).operators
        with mock.patch.object(scaled_dot_product.Kernel, "__call__", kernel):
            y = scaled_dot_product.attend_packed(operators, query, query, query, None, None, False, 1.0, 0.0)
            y.sum().backward()
        sums, packed_query, restored_sums = restored
        self.assertTrue(torch.equal(restored_sums, sums))
        self.assertFalse(torch.equal(packed_query, query))


class Dropout(unittest.TestCase):
    def test_the_mean_of_outputs(self):
        """Dropout on probabilities leaves the mean of the first layer's attention as it is."""
        draws = 300
        for make in MODELS.values():
            model = make(dropout=0.3)
            layer = next(m for m in model.modules() if "Attention" in type(m).__name__ and hasattr(m, "config"))
            x = torch.randn(2, LENGTH, 64, generator=torch.Generator().manual_seed(3))
            options = {}
            if isinstance(model, LlamaModel):
                options["position_embeddings"] = model.rotary_emb(x, torch.arange(LENGTH)[None])
            model.eval()
            exact = layer(x, **options)[0]
            model.train()
            converted(model, "packed")
            outputs = torch.stack([layer(x, **options)[0].detach() for _ in range(draws)])
            z = (outputs.mean(0) - exact).abs() / (outputs.std(0) / draws**0.5 + 1e-6)
            self.assertGreater(outputs.std(0).mean(), 1e-4)
            self.assertLess(z.max(), 6)

    def test_gradients_are_of_the_mask_that_was_drawn(self):
        """Beside differences of the loss, with the same draws."""
        for mode in ("exact", "packed"):
            model = bert(dropout=0.3)
            converted(model, mode)
            weight = model.encoder.layer[0].attention.self.value.weight
            direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(4))

            def loss():
                torch.manual_seed(6)
                return run(model).square().mean() * 100

            model.zero_grad()
            loss().backward()
            values = []
            with torch.no_grad():
                for step in (1e-2, -2e-2):
                    weight.add_(direction, alpha=step)
                    values.append(loss().item())
            slope = (values[0] - values[1]) / 2e-2
            self.assertLess(abs((weight.grad * direction).sum().item() - slope), 0.05 * abs(slope) + 1e-3)

    def test_checkpointing_repeats_the_masks(self):
        for mode in ("exact", "packed"):
            for reentrant in (True, False):
                with self.subTest(mode, reentrant=reentrant):
                    model = bert(dropout=0.4)
                    converted(model, mode)
                    torch.manual_seed(8)
                    expected = gradients(model)
                    model.gradient_checkpointing_enable({"use_reentrant": reentrant})
                    torch.manual_seed(8)
                    found = gradients(model)
                    torch.testing.assert_close(found[0], expected[0])
                    for this, other in zip(found[1:], expected[1:]):
                        self.assertLessEqual((this - other).norm(), 0.05 * other.norm() + 1e-3)

    def test_a_checkpointed_segment_holds_nothing(self):
        for dropout in (0.0, 0.4):
            model = bert(dropout=dropout)
            converted(model, "packed")
            ids, _ = batch()
            x = model.embeddings(ids)
            with SavedBytes(model) as saved:
                y = checkpoint(model.encoder.layer[0], x, use_reentrant=False)
            self.assertLessEqual(saved.total, x.nbytes)
            y.sum().backward()


class Padding(unittest.TestCase):
    def test_padding_is_not_attended_to(self):
        """Outputs do not depend on what stands in the padding."""
        ids, mask = batch("right")
        other = torch.where(mask.bool(), ids, WORDS - 1 - ids)
        for name, make in MODELS.items():
            for mode in ("exact", "packed"):
                for context in (mock.MagicMock(), probabilities_always()):
                    with context, self.subTest(name, mode=mode):
                        model = make()
                        converted(model, mode)
                        torch.testing.assert_close(run(model, "right", ids=other), run(model, "right"))

    def test_without_a_mask_function_it_would_be(self):
        """What the test above is there to find."""
        model = bert()
        converted(model, "packed")
        ids, mask = batch("right")
        other = torch.where(mask.bool(), ids, WORDS - 1 - ids)
        without = dict(ALL_MASK_ATTENTION_FUNCTIONS._global_mapping)
        del without[model.config._attn_implementation]
        with mock.patch.object(type(ALL_MASK_ATTENTION_FUNCTIONS), "_global_mapping", without):
            difference = run(model, "right", ids=other) - run(model, "right")
        self.assertGreater(difference.abs().max(), 0.01)

    def test_queries_that_may_attend_to_nothing(self):
        """As under padding on the left and a causal mask: zeros, as torch has them, and no gradient that is not
        finite."""
        model = llama()
        converted(model, "packed")
        with probabilities_always():
            for gradient in gradients(model, "left"):
                self.assertTrue(gradient.isfinite().all())


class Conversion(unittest.TestCase):
    def test_eval_and_revert(self):
        for name, make in MODELS.items():
            for implementation in ("sdpa", "eager"):
                with self.subTest(name, implementation=implementation):
                    model = make(dropout=0.3, implementation=implementation).eval()
                    expected = gradients(model, "right")
                    sampling = convert(model, activations="packed")
                    for found, exact in zip(gradients(model, "right"), expected):
                        self.assertTrue(torch.equal(found, exact))
                    self.assertNotEqual(model.config._attn_implementation, implementation)
                    sampling.revert()
                    self.assertEqual(model.config._attn_implementation, implementation)
                    model.train()
                    gradients(model, "right")

    def test_sub_models_are_served(self):
        model = t5(dropout=0.1)
        sampling = converted(model, "packed")
        names = {m.config._attn_implementation for m in model.modules() if hasattr(m, "config")}
        self.assertTrue(all(name.startswith("wtacrs_sdpa") for name in names), names)
        self.assertIn("the attention of", str(sampling))

    def test_copies(self):
        model = bert(dropout=0.3)
        sampling = converted(model, "packed")
        average = copy.deepcopy(model)
        sampling.revert()
        gradients(average)
        self.assertTrue(average.config._attn_implementation.startswith("wtacrs"))

    def test_configs_are_saved_without_the_name(self):
        model = bert()
        converted(model, "packed")
        self.assertNotIn("wtacrs", model.config.to_json_string())

    def test_skipped_attention(self):
        model = bert(dropout=0.0)
        expected = gradients(model)
        convert(model, 1.0, bits="native", activations="packed", skip="*")
        for found, exact in zip(gradients(model), expected):
            self.assertTrue(torch.equal(found, exact))

    def test_implementations_that_are_left(self):
        def other(module, query, key, value, mask, **options):
            return query.transpose(1, 2), None

        AttentionInterface.register("other", other)
        model = bert(implementation="other")
        sampling = converted(model, "packed")
        self.assertEqual(model.config._attn_implementation, "other")
        self.assertIn(("attention of BertModel", "its implementation is 'other'"), sampling.left_modules)

    def test_probabilities_that_are_asked_for(self):
        model = bert(dropout=0.0, implementation="eager")
        converted(model, "packed")
        found = model(input_ids=batch()[0], output_attentions=True)
        self.assertEqual(found.attentions[0].shape, (BATCH, 4, LENGTH, LENGTH))

    def test_capped_scores_are_left(self):
        torch.manual_seed(0)
        config = Gemma2Config(
            **small(), num_attention_heads=4, num_key_value_heads=2, head_dim=16, use_cache=False,
            attn_implementation="eager", attn_logit_softcapping=2.0,
        )  # fmt: skip
        model = Gemma2Model(config).train()
        expected = gradients(model)
        converted(model, "packed")
        for found, exact in zip(gradients(model), expected):
            self.assertTrue(torch.equal(found, exact))


if __name__ == "__main__":
    unittest.main()
