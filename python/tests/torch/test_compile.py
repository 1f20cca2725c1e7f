"""What traces a model: torch.compile, torch.export, make_fx, and tensors without memory."""

import copy
import unittest
from contextlib import nullcontext

import torch
from torch import nn
from torch._subclasses import FakeTensorMode
from torch.distributed._tools.mem_tracker import MemTracker
from torch.func import functional_call
from torch.fx.experimental.proxy_tensor import make_fx
from torch.utils.checkpoint import checkpoint
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
)

from wtacrs.torch import SavedBytes, convert
from wtacrs.torch.attention.operands import Sizes
from wtacrs.torch.attention.probabilities import Form
from wtacrs.torch.linear import ops, plans
from wtacrs.torch.operators.passes import Description

from .helpers import unbiased

SEED = 5


def bert(dropout):
    config = BertConfig(
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=128,
        vocab_size=100,
        hidden_dropout_prob=dropout,
        attention_probs_dropout_prob=dropout,
    )
    ids = torch.randint(100, (4, 32))
    mask = torch.ones_like(ids)
    mask[0, 20:] = 0
    return BertForSequenceClassification(config), {
        "input_ids": ids, "attention_mask": mask, "labels": torch.tensor([0, 1, 0, 1])
    }  # fmt: skip


def t5(dropout):
    config = T5Config(
        d_model=64,
        d_kv=16,
        d_ff=128,
        num_layers=2,
        num_heads=4,
        vocab_size=100,
        dropout_rate=dropout,
        decoder_start_token_id=0,
    )
    ids = torch.randint(100, (4, 32))
    return T5ForConditionalGeneration(config), {"input_ids": ids, "labels": ids}


def llama(dropout):
    config = LlamaConfig(
        hidden_size=64,
        intermediate_size=128,
        num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2,
        vocab_size=100,
        attention_dropout=dropout,
    )
    ids = torch.randint(100, (4, 32))
    return LlamaForCausalLM(config), {"input_ids": ids, "labels": ids}


def layers():
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(64, 128), nn.GELU(), nn.Linear(128, 64))


class Compiled(unittest.TestCase):
    def setUp(self):
        torch._dynamo.reset()

    def trained(self, make, dropout, backend, **options):
        """Losses, the last gradients and the offset of three steps."""
        torch.manual_seed(0)
        model, batch = make(dropout)
        model.train()
        # An eager first pass would measure which inputs are kept anyway.
        sampling = convert(model, 0.3, seed=SEED, sample_kept_inputs=True, **options)
        step = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
        optimizer = torch.optim.SGD(model.parameters(), 0.01)
        losses = []
        for _ in range(3):
            optimizer.zero_grad()
            loss = step(**batch).loss
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        gradients = {name: p.grad for name, p in model.named_parameters() if p.grad is not None}
        return losses, gradients, sampling

    def test_the_same_bits_as_without(self):
        for make, dropout, options in [
            (bert, 0.0, {}),
            (t5, 0.0, {}),
            (llama, 0.0, {}),
            (bert, 0.1, {}),
            (llama, 0.0, {"activations": "packed"}),
            (bert, 0.1, {"activations": "packed"}),
            (t5, 0.1, {"activations": "packed", "activation_bits": 4}),
            (bert, 0.1, {"activations": "exact", "bits": "native", "tensor_mul": 0.3}),
        ]:
            with self.subTest(model=make.__name__, dropout=dropout, **options):
                eager = self.trained(make, dropout, None, **options)
                torch._dynamo.reset()
                compiled = self.trained(make, dropout, "aot_eager", **options)
                self.assertEqual(eager[0], compiled[0])
                self.assertEqual(eager[1].keys(), compiled[1].keys())
                for name, gradient in eager[1].items():
                    self.assertTrue(torch.equal(gradient, compiled[1][name]), name)
                self.assertEqual(eager[2].offset, compiled[2].offset)
                states = [sampling.state_dict()["guesses"] for _, _, sampling in (eager, compiled)]
                self.assertEqual(states[0].keys(), states[1].keys())
                for name, state in states[0].items():
                    self.assertTrue(torch.equal(state, states[1][name]), name)

    def test_inductor(self):
        """Its kernels round in other ways than torch's own."""
        eager = self.trained(bert, 0.0, None, activations="packed")
        compiled = self.trained(bert, 0.0, "inductor", activations="packed")
        torch.testing.assert_close(torch.tensor(eager[0]), torch.tensor(compiled[0]), rtol=1e-3, atol=1e-3)
        self.assertEqual(eager[2].offset, compiled[2].offset)

    def test_autocast(self):
        def run(backend):
            model, h = layers(), torch.randn(256, 64, generator=torch.Generator().manual_seed(1))
            convert(model, 0.3, seed=SEED, activations="packed")
            step = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
            with torch.autocast("cpu", dtype=torch.bfloat16):
                loss = step(h).float().sin().sum()
            loss.backward()
            return [p.grad for p in model.parameters()]

        for eager, compiled in zip(run(None), run("aot_eager")):
            self.assertIs(compiled.dtype, torch.float32)
            self.assertTrue(torch.equal(eager, compiled))

    def test_cached_norms(self):
        def run(backend):
            model = layers()
            sampling = convert(model, 0.3, source="cached", seed=SEED, samples=8, tokens_per_sample=32)
            step = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
            h = torch.randn(8, 32, 64, generator=torch.Generator().manual_seed(1))
            for _ in range(3):
                model.zero_grad()
                with sampling.batch(range(8), torch.ones(8, 32)):
                    step(h).sin().sum().backward()
            return [p.grad for p in model.parameters()]

        for eager, compiled in zip(run(None), run("aot_eager")):
            self.assertTrue(torch.equal(eager, compiled))

    def test_lengths_that_change_need_no_new_graph(self):
        model = layers()
        convert(model, 0.3, seed=SEED)
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph

        step = torch.compile(model, fullgraph=True, backend=backend)
        for tokens in range(200, 1200, 100):
            step(torch.randn(tokens, 64)).sum().backward()
        self.assertLessEqual(len(graphs), 2)

    def test_checkpointed_segments(self):
        """Masks of dropout repeat where a segment runs again; rows may be others."""

        class Segments(nn.Module):
            def __init__(self):
                super().__init__()
                self.first, self.second = layers(), nn.Sequential(layers(), nn.Dropout(0.5))

            def forward(self, h):
                h = checkpoint(self.first, h, use_reentrant=False)
                return checkpoint(self.second, h, use_reentrant=False)

        h = torch.randn(256, 64)
        torch.manual_seed(3)
        model = Segments()
        exact = copy.deepcopy(model)
        convert(exact, 1.0, bits=8, seed=SEED, activations="packed", activation_bits=8)
        torch.manual_seed(4)
        exact(h).sin().sum().backward()
        convert(model, 1.0, bits=8, seed=SEED, activations="packed", activation_bits=8)
        step = torch.compile(model, fullgraph=True, backend="aot_eager")
        torch.manual_seed(4)
        step(h).sin().sum().backward()
        for right, found in zip(exact.parameters(), model.parameters()):
            # Other dithers of 8 bits, and the same masks.
            self.assertLess((found.grad - right.grad).norm(), 0.05 * right.grad.norm())

    def test_blocks_compiled_by_themselves_share_one_graph(self):
        torch.manual_seed(0)
        model = nn.ModuleList([layers() for _ in range(4)])
        sampling = convert(model, 0.3, seed=SEED)
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph

        h = torch.randn(256, 64)
        for block in model:
            block.compile(fullgraph=True, backend=backend)
            h = block(h)
        h.sum().backward()
        self.assertEqual(sorted(sampling.guesses), [f"{i}.{j}" for i in range(4) for j in (0, 2)])

    def test_bytes_are_counted_around_a_compilation(self):
        model, h = layers(), torch.randn(256, 64)
        convert(model, 0.3, seed=SEED)
        step = torch.compile(model, fullgraph=True, backend="aot_eager")
        with SavedBytes(model) as saved:
            step(h).sum().backward()
        self.assertGreater(saved.total, 0)

    def test_layers_that_read_one_input_share_its_rows(self):
        class Gated(nn.Module):
            def __init__(self):
                super().__init__()
                self.gate, self.up, self.down = nn.Linear(64, 128), nn.Linear(64, 128), nn.Linear(128, 64)

            def forward(self, h):
                return self.down(self.gate(h).sin() * self.up(h))

        model = Gated()
        sampling = convert(model, 0.3, seed=SEED)
        graphs = []

        def backend(graph, inputs):
            graphs.append(graph)
            return graph

        h = torch.randn(256, 64)
        torch.compile(model, fullgraph=True, backend=backend)(h).sum().backward()
        targets = [node.target for node in graphs[0].graph.nodes]
        self.assertEqual(targets.count(torch.ops.wtacrs.pack_rows), 2)
        self.assertEqual(sorted(sampling.guesses), ["down", "gate"])
        self.assertIsNone(sampling.traces.memo)


class Exported(unittest.TestCase):
    def test_an_exported_model_trains(self):
        for strict in (False, True):
            model, h = layers(), torch.randn(256, 64)
            sampling = convert(model, 0.3, seed=SEED)
            exported = torch.export.export(model, (h,), strict=strict).module()
            gradients = []
            for _ in range(2):
                exported.zero_grad()
                exported(h).sin().sum().backward()
                gradients.append(exported.get_parameter("0.weight").grad.clone())
            self.assertFalse(torch.equal(*gradients), "both steps have the same rows")
            self.assertEqual(sampling.offset, 2 * 512)
            self.assertEqual(sorted(sampling.guesses), ["0", "2"])


class Functional(unittest.TestCase):
    def test_make_fx(self):
        model, h = layers(), torch.randn(256, 64)
        convert(model, 0.3, seed=SEED)
        parameters = dict(model.named_parameters())

        def gradients(parameters, h):
            loss = functional_call(model, parameters, (h,)).sin().sum()
            return torch.autograd.grad(loss, list(parameters.values()))

        for mode in ("real", "fake", "symbolic"):
            with self.subTest(mode=mode):
                graph = make_fx(gradients, tracing_mode=mode)(parameters, h)
                targets = [node.target for node in graph.graph.nodes]
                self.assertEqual(targets.count(torch.ops.wtacrs.weight_gradient.default), 2)
                first, second = graph(parameters, h), graph(parameters, h)
                self.assertFalse(torch.equal(first[0], second[0]))
                # The bias's gradient is exact.
                self.assertTrue(torch.equal(first[1], second[1]))


class WithoutMemory(unittest.TestCase):
    def held(self, mode, **options):
        with mode():
            model, h = layers(), torch.randn(4096, 64)
            if options:
                convert(model, 0.3, **options)
            with SavedBytes(model) as saved:
                loss = model(h).sin().sum()
            loss.backward()
            return saved.total

    def test_sizes_are_right(self):
        for options in ({}, {"bits": 4}, {"bits": "native"}, {"bits": 4, "activations": "packed"}):
            traced, held = self.held(FakeTensorMode, **options), self.held(nullcontext, **options)
            # Both layers' sites, and a key of what stands between them.
            self.assertLessEqual(held, traced)
            self.assertLessEqual(traced, held + 3 * 16)

    def test_a_memory_tracker(self):
        def peak(sampled):
            with FakeTensorMode():
                model, h = layers(), torch.randn(4096, 64)
                if sampled:
                    convert(model, 0.1, bits=4, activations="packed")
                tracker = MemTracker()
                tracker.track_external(model)
                with tracker:
                    model(h).sin().sum().backward()
                return tracker.get_tracker_snapshot("peak")[torch.device("cpu")]["Total"]

        self.assertLess(peak(True), 0.9 * peak(False))


class Operators(unittest.TestCase):
    """What torch.library's own checks ask of an operator: a true schema, a fake that fits, a formula for gradients."""

    def setUp(self):
        self.words = torch.tensor([SEED, 0])
        torch.manual_seed(0)

    def test_rows(self):
        model = layers()
        sampling = convert(model, 0.3, seed=SEED)
        sampled = model[0].sampled
        h, weight = torch.randn(4, 64, 64), torch.randn(128, 64, requires_grad=True)
        keep = sampled.described(torch.float32)
        opcheck = lambda name, *arguments: torch.library.opcheck(getattr(torch.ops.wtacrs, name).default, arguments)
        opcheck("pack_rows", h, self.words, sampled.site, None, None, 128, keep)
        block = torch.ops.wtacrs.pack_rows(h, self.words, sampled.site, None, None, 128, keep)
        opcheck("joint", block, weight, sampled.site, None, None, 256, 64, keep)
        joint = torch.zeros(256, dtype=torch.float64, requires_grad=True)
        bias = torch.randn(128, requires_grad=True)
        opcheck("linear", h.requires_grad_(), weight, bias, block, joint, keep)
        opcheck("weight_gradient", block, torch.randn(256, 128), 64, keep, True, True)
        opcheck("learn", sampled.site, block, torch.rand(256, dtype=torch.float64), None, None, 64, keep)
        self.assertIs(sampling.layers["0"], model[0])

    def test_what_stands_between(self):
        x = torch.randn(64, 128, requires_grad=True)
        opcheck = lambda name, *arguments: torch.library.opcheck(getattr(torch.ops.wtacrs, name).default, arguments)
        for description, operands in [
            (Description("gelu", 128, packing=8), (None, None, None)),
            (Description("silu", 128, gated=True, packing=4), (torch.randn(64, 128), None, None)),
            (Description("layer-norm", 128, packing=8), (None, torch.rand(128), torch.rand(128))),
            (Description("rms-norm", 128), (None, torch.rand(128), None)),
        ]:
            text = str(description)
            self.assertEqual(Description.parse(text), description)
            operands = [None if operand is None else operand.requires_grad_() for operand in operands]
            opcheck("dither", self.words, x, text)
            key = torch.ops.wtacrs.dither(self.words, x, text)
            opcheck("operator", x, *operands, key, text)

    def test_attention(self):
        opcheck = lambda name, *arguments: torch.library.opcheck(getattr(torch.ops.wtacrs, name).default, arguments)
        make = lambda heads: torch.randn(2, heads, 32, 16, requires_grad=True)
        query, key, value = make(4), make(2), make(2)
        sizes = Sizes.of(query, key, value)
        for form in (
            Form(False, 0.25, 0.1, 8, 8, None),
            Form(True, 0.25, 0.0, "native", "native", None),
            Form(False, 0.25, 0.1, "native", "native", 0.5),
        ):
            text = str(form)
            self.assertEqual(Form.parse(text), form)
            mask_key = torch.ops.wtacrs.mask_key(self.words) if form.dropout else None
            opcheck("attention_keys", self.words, query, sizes, text)
            keys = torch.ops.wtacrs.attention_keys(self.words, query, sizes, text)
            opcheck("attention", query, key, value, None, None, mask_key, keys, text)
        strides = [*query.stride(), *key.stride(), *value.stride()]
        keys = torch.ops.wtacrs.kernel_keys(self.words, query, sizes, strides, 8)
        opcheck("kernel_attention", query, key, value, None, keys, True, 0.25, strides, 8)

    def test_blocks_have_the_librarys_size(self):
        for bits in ("native", 8, 4, 2):
            for tokens in (1, 7, 64, 100, 1000):
                for in_features in (16, 20, 64, 128, 130, 300):
                    for budget in (0.1, 0.3, 0.999, 1.0):
                        keep = ops.describe(budget, bits, "wta-pivotal", "predicted", "auto", torch.float32)
                        plan = ops.rows_plan(keep, torch.device("cpu"), tokens, in_features, 8)
                        found = plans.block_bytes(tokens, in_features, 4, budget, bits)
                        self.assertEqual(found, plan.native.saved_bytes, (bits, tokens, in_features, budget))

    def test_gradients_are_unbiased(self):
        model, h = layers(), torch.randn(128, 64)
        loss = lambda step: step(h).sin().sum()
        loss(model).backward()
        exact = model[0].weight.grad.clone()
        convert(model, 0.3, seed=SEED)
        step = torch.compile(model, fullgraph=True, backend="aot_eager")

        def draw():
            model.zero_grad()
            loss(step).backward()
            return model[0].weight.grad.clone()

        unbiased(self, draw, exact)


if __name__ == "__main__":
    unittest.main()
