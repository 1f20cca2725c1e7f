"""Activations, gated units, dropout and norms: outputs as torch has them, gradients exact or without bias, and what is
left as it was."""

import copy
import math
import unittest

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint
from transformers import T5Config
from transformers.activations import ACT2FN
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaConfig, LlamaMLP, LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.qwen2.modeling_qwen2 import Qwen2RMSNorm
from transformers.models.t5.modeling_t5 import T5DenseGatedActDense, T5LayerNorm

from wtacrs.torch import Error, SavedBytes, convert
from wtacrs.torch.operators.modules import Converted
from wtacrs.torch.operators.recognition import kind_of

from .helpers import uneven

ROWS, COLUMNS = 6, 160
DTYPES = {torch.float32: 1e-6, torch.bfloat16: 2**-8, torch.float16: 2**-11}


def activations():
    return {
        "relu": nn.ReLU(),
        "gelu": nn.GELU(),
        "gelu, tanh": nn.GELU(approximate="tanh"),
        "silu": nn.SiLU(),
        **{f"transformers' {name}": ACT2FN[name] for name in (
            "gelu", "gelu_new", "gelu_fast", "gelu_python", "gelu_pytorch_tanh", "gelu_python_tanh", "gelu_accurate",
            "silu",
        )},
    }  # fmt: skip


def norms():
    made = {
        "layer": nn.LayerNorm(COLUMNS),
        "layer, plain": nn.LayerNorm(COLUMNS, elementwise_affine=False),
        "layer, no bias": nn.LayerNorm(COLUMNS, bias=False, eps=1e-3),
        "rms": nn.RMSNorm(COLUMNS),
        "rms, plain": nn.RMSNorm(COLUMNS, eps=1e-3, elementwise_affine=False),
        "T5": T5LayerNorm(COLUMNS),
        "Llama": LlamaRMSNorm(COLUMNS),
        "Qwen2": Qwen2RMSNorm(COLUMNS),
        "Olmo2": Olmo2RMSNorm(COLUMNS),
        "Gemma3": Gemma3RMSNorm(COLUMNS),
    }
    for norm in made.values():
        for p in norm.parameters():
            nn.init.uniform_(p, -1, 1)
    return made


def gated_units(dropout=0.0):
    llama = LlamaConfig(hidden_size=32, intermediate_size=COLUMNS)
    t5 = T5Config(d_model=32, d_ff=COLUMNS, feed_forward_proj="gated-gelu", dropout_rate=dropout)
    return {"Llama": LlamaMLP(llama), "T5": T5DenseGatedActDense(t5)}


def converted(model, mode="exact", bits=8, **options):
    """With linear layers as they are."""
    return convert(model, 1.0, bits="native", activations=mode, activation_bits=bits, seed=3, **options)


def passes(module, x, loss=lambda y: y.float().sin().sum()):
    x = x.detach().requires_grad_()
    module.zero_grad()
    y = module(x)
    loss(y).backward()
    return [y.detach(), x.grad, *(p.grad.clone() for p in module.parameters() if p.grad is not None)]


class Outputs(unittest.TestCase):
    def same(self, module, x, mode, tolerance, gradients):
        model = nn.ModuleList([module])
        for autocast in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
                expected = passes(module, x)
                sampling = converted(model, mode)
                found = passes(module, x)
                sampling.revert()
            # Within what rounding once more, in the parts of a composed function, adds.
            tolerance = max(tolerance, 2**-8) if autocast else tolerance
            scale = max(1, expected[0].float().abs().max().item()) if x.numel() else 1
            self.assertIs(found[0].dtype, expected[0].dtype)
            torch.testing.assert_close(found[0], expected[0], rtol=4 * tolerance, atol=4 * tolerance * scale)
            for this, exact in zip(found[1:], expected[1:]):
                self.assertIs(this.dtype, exact.dtype)
                error = (this - exact).float().norm()
                self.assertLessEqual(error, (gradients + 8 * tolerance) * exact.float().norm())

    def every(self, modules, mode, gradients):
        for dtype, tolerance in DTYPES.items():
            for name, module in modules().items():
                with self.subTest(name, dtype=dtype, mode=mode):
                    self.same(module.to(dtype), uneven(ROWS, COLUMNS).to(dtype), mode, tolerance, gradients)

    def test_activations(self):
        for mode in ("exact", "packed"):
            self.every(activations, mode, gradients=0.01)

    def test_norms(self):
        self.every(norms, "exact", gradients=0)
        self.every(norms, "packed", gradients=0.05)

    def test_norms_with_weights_of_f32(self):
        for name, module in norms().items():
            for dtype in (torch.bfloat16, torch.float16):
                if name.startswith("rms"):
                    # torch's own product of both dtypes is slow, and warns.
                    continue
                with self.subTest(name, dtype=dtype):
                    self.same(module, uneven(ROWS, COLUMNS).to(dtype), "exact", DTYPES[dtype], gradients=0.01)

    def test_gated_units(self):
        for mode, gradients in (("exact", 0), ("packed", 0.03)):
            for dtype, tolerance in DTYPES.items():
                for name, module in gated_units().items():
                    with self.subTest(name, dtype=dtype, mode=mode):
                        x = torch.randn(ROWS, 32, generator=torch.Generator().manual_seed(1)).to(dtype)
                        self.same(module.to(dtype), x, mode, 4 * tolerance, gradients)

    def test_axes_and_strides(self):
        for shape in ((COLUMNS,), (2, 3, COLUMNS), (2, 0, COLUMNS)):
            for module in (nn.LayerNorm(COLUMNS), nn.GELU(), nn.LayerNorm(shape) if 0 not in shape else nn.ReLU()):
                self.same(module, uneven(*shape) if 0 not in shape else torch.zeros(shape), "packed", 1e-5, 0.05)
        turned = uneven(COLUMNS, COLUMNS).T
        self.same(nn.GELU(), turned, "packed", 1e-6, 0.01)
        self.same(nn.LayerNorm(COLUMNS), turned, "exact", 1e-6, 0)

    def test_a_norm_refuses_what_torch_refuses(self):
        model = nn.Sequential(nn.LayerNorm(COLUMNS))
        converted(model)
        with self.assertRaisesRegex(RuntimeError, "normalized_shape"):
            model(torch.zeros(2, COLUMNS + 1))


class Dropped(unittest.TestCase):
    def setUp(self):
        self.model = nn.Sequential(nn.Dropout(0.3))
        self.x = torch.ones(200, COLUMNS)

    def test_the_law(self):
        converted(self.model)
        torch.manual_seed(1)
        y, dx = passes(self.model, self.x, loss=lambda y: y.sum())
        self.assertTrue(torch.equal(y, dx))
        kept = y != 0
        torch.testing.assert_close(y[kept], torch.full_like(y[kept], 1 / 0.7))
        count = y.numel()
        self.assertLess(abs(kept.sum() - 0.7 * count), 5 * math.sqrt(0.21 * count))
        again = passes(self.model, self.x, loss=lambda y: y.sum())[0]
        both = (kept & (again != 0)).sum()
        self.assertLess(abs(both - 0.49 * count), 5 * math.sqrt(0.49 * 0.51 * count))

    def test_masks_follow_both_seeds(self):
        def mask(of_torch, seed):
            sampling = convert(self.model, activations="exact", seed=seed)
            torch.manual_seed(of_torch)
            y = self.model(self.x)
            sampling.revert()
            return y

        self.assertTrue(torch.equal(mask(1, 2), mask(1, 2)))
        self.assertFalse(torch.equal(mask(1, 2), mask(2, 2)))
        # As ranks have them, whose generators of torch's often agree.
        self.assertFalse(torch.equal(mask(1, 2), mask(1, 3)))

    def test_nothing_but_a_seed_is_held(self):
        converted(self.model)
        with SavedBytes(self.model) as saved:
            self.model(self.x.requires_grad_())
        self.assertLess(saved.total, 1000)

    def test_no_dropout_is_none(self):
        for p in (0.0, 1.0):
            model = nn.Sequential(nn.Dropout(p))
            converted(model)
            self.assertTrue(torch.equal(model(self.x), F.dropout(self.x, p)))


class Block(nn.Module):
    """A pre-norm feed-forward block with everything in it."""

    def __init__(self, dropout=0.2):
        super().__init__()
        self.norm, self.rms = nn.LayerNorm(32), T5LayerNorm(32)
        self.up, self.down = nn.Linear(32, COLUMNS), nn.Linear(COLUMNS, 32)
        self.act, self.dropout = nn.GELU(), nn.Dropout(dropout)
        self.last = nn.ReLU()
        self.unit = LlamaMLP(LlamaConfig(hidden_size=32, intermediate_size=COLUMNS))

    def forward(self, x):
        x = x + self.dropout(self.down(self.act(self.up(self.norm(x)))))
        return self.dropout(self.last(x + self.unit(self.rms(x))))


class Training(unittest.TestCase):
    draws = 2000

    def setUp(self):
        torch.manual_seed(0)
        self.x = uneven(24, 32)

    def test_exact_gradients(self):
        block = Block(dropout=0)
        expected = passes(block, self.x)
        converted(block)
        for found, exact in zip(passes(block, self.x), expected):
            torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-5)

    def test_unbiased_gradients(self):
        """Each element's mean over the draws is exact's, by its own standard error."""
        draws = self.draws
        for bits in (8, 4):
            block = Block(dropout=0)
            loss = lambda y: (y * self.x.cos()).sum()
            # Downstream gradients must not depend on what is drawn, as those of a sum do not.
            exact = passes(block, self.x, loss)[1:]
            sampling = converted(block, "packed", bits)
            sums = [torch.zeros_like(g, dtype=torch.float64) for g in exact]
            squares = [torch.zeros_like(s) for s in sums]
            for _ in range(draws):
                for total, square, found, true in zip(sums, squares, passes(block, self.x, loss)[1:], exact):
                    error = found.double() - true
                    total += error
                    square += error.square()
            sampling.revert()
            noise = 0
            for total, square, true in zip(sums, squares, exact):
                deviation = (square / draws).sqrt()
                # f32 rounds the products of both ways differently.
                rounding = 1e-5 * true.abs().max()
                z = (total / draws).abs().sub(rounding).clamp(min=0) / (deviation / math.sqrt(draws) + 1e-30)
                self.assertLess(z.max(), 6)
                noise = max(noise, (deviation.norm() / true.norm()).item())
            self.assertGreater(noise, 1e-4, "nothing was drawn")

    def test_checkpointing_repeats_the_masks(self):
        for mode in ("exact", "packed"):
            for reentrant in (True, False):
                with self.subTest(mode, reentrant=reentrant):
                    model = nn.Sequential(Block(), Block())
                    converted(model, mode)
                    x = self.x.clone().requires_grad_()

                    def gradients(run):
                        torch.manual_seed(7)
                        model.zero_grad()
                        x.grad = None
                        y = x
                        for part in model:
                            y = run(part, y)
                        y.sin().sum().backward()
                        return [y.detach(), x.grad, *(p.grad.clone() for p in model.parameters())]

                    expected = gradients(lambda part, y: part(y))
                    found = gradients(lambda part, y: checkpoint(part, y, use_reentrant=reentrant))
                    # Where nothing is saved torch computes itself.
                    torch.testing.assert_close(found[0], expected[0])
                    # Another mask changes gradients by a half of their length; dithers differ.
                    for this, other in zip(found[1:], expected[1:]):
                        self.assertLess((this - other).norm(), (0.03 if mode == "packed" else 1e-5) * other.norm())

    def test_eval_is_torchs(self):
        block = Block()
        sampling = converted(block, "packed")
        block.eval()
        found = passes(block, self.x)
        sampling.revert()
        for this, exact in zip(found, passes(block, self.x)):
            self.assertTrue(torch.equal(this, exact))

    def test_f64_is_torchs(self):
        block = Block(dropout=0).double()
        expected = passes(block, self.x.double())
        converted(block, "packed")
        for found, exact in zip(passes(block, self.x.double()), expected):
            self.assertTrue(torch.equal(found, exact))

    def test_the_same_seeds_give_the_same_gradients(self):
        def run(seed):
            block = copy.deepcopy(made)
            convert(block, 0.3, activations="packed", seed=seed)
            torch.manual_seed(5)
            return [passes(block, self.x) for _ in range(2)]

        made = Block()
        once, again, other = run(1), run(1), run(2)
        for this, that in zip(once, again):
            self.assertTrue(all(torch.equal(a, b) for a, b in zip(this, that)))
        self.assertFalse(torch.equal(once[0][0], other[0][0]))
        self.assertFalse(torch.equal(once[0][1], once[1][1]))

    def test_a_state_continues_to_the_same_bits(self):
        block = Block()
        sampling = convert(block, 0.3, activations="packed", seed=1)
        passes(block, self.x)
        state, rng = copy.deepcopy(sampling.state_dict()), torch.get_rng_state()
        expected = passes(block, self.x)
        sampling.load_state_dict(state)
        torch.set_rng_state(rng)
        self.assertTrue(all(torch.equal(a, b) for a, b in zip(passes(block, self.x), expected)))


class Conversion(unittest.TestCase):
    def test_none_changes_nothing(self):
        block = Block()
        convert(block)
        self.assertFalse(any(isinstance(m, Converted) for m in block.modules()))

    def test_revert(self):
        block = Block()
        kinds, state = [type(m) for m in block.modules()], list(block.state_dict())
        attributes = [set(vars(m)) for m in block.modules()]
        sampling = convert(block, activations="packed")
        self.assertEqual(list(block.state_dict()), state)
        self.assertTrue(all(isinstance(m, kind) for m, kind in zip(block.modules(), kinds)))
        self.assertIsInstance(block.norm, Converted)
        sampling.revert()
        self.assertEqual([type(m) for m in block.modules()], kinds)
        self.assertEqual([set(vars(m)) for m in block.modules()], attributes)

    def test_skip(self):
        block = Block()
        convert(block, activations="packed", skip=["norm", "unit*"])
        self.assertFalse(isinstance(block.norm, Converted) or isinstance(block.unit, Converted))
        self.assertIsInstance(block.rms, Converted)

    def test_copies(self):
        block = Block()
        convert(block, activations="packed")
        average = copy.deepcopy(block)
        passes(average, uneven(4, 32))
        self.assertIs(average.norm.operators, block.norm.operators)

    def test_what_is_left_and_why(self):
        model = nn.Sequential(
            nn.Linear(64, 64), nn.ReLU(inplace=True), nn.GELU(), nn.Dropout(0.1), ACT2FN["quick_gelu"]
        )
        sampling = convert(model, activations="exact")
        self.assertEqual([type(m).__name__ for m in model if isinstance(m, Converted)], ["Dropout"])
        reasons = dict(sampling.left_modules)
        self.assertEqual(reasons["1"], "it works in place")
        self.assertIn("which torch keeps", reasons["2"])
        lines = str(sampling).splitlines()
        self.assertIn("1 dropout save what their gradients need", lines)
        self.assertIn("left as they are, since it works in place: 1", lines)

    def test_bad_options_are_named(self):
        with self.assertRaisesRegex(Error, "no way to save activations 'lossy'; there are None, exact, packed"):
            convert(Block(), activations="lossy")
        with self.assertRaisesRegex(Error, "no number of activation bits 2; there are 8, 4"):
            convert(Block(), activations="packed", activation_bits=2)

    def test_a_name_is_not_enough(self):
        """A class that is called as a known one, but computes something else."""

        class LlamaRMSNorm(nn.Module):
            def __init__(self):
                super().__init__()
                self.weight, self.variance_epsilon = nn.Parameter(torch.ones(4)), 1e-6

            def forward(self, x):
                return self.weight * x * torch.rsqrt(x.pow(2).sum(-1, keepdim=True) + self.variance_epsilon)

        self.assertIsNone(kind_of(LlamaRMSNorm()))
        self.assertIsNone(kind_of(ACT2FN["mish"]))
        self.assertIsNone(kind_of(ACT2FN["quick_gelu"]))
        changed = nn.GELU()
        changed.forward = lambda x: x
        self.assertIsNone(kind_of(changed))

    def test_multi_head_attention_is_left_alone(self):
        layer = nn.TransformerEncoderLayer(32, 4, 64, batch_first=True)
        sampling = convert(layer, activations="packed", skip=["linear*"])
        self.assertNotIsInstance(layer.self_attn, Converted)
        self.assertIsInstance(layer.norm1, Converted)
        layer(torch.randn(2, 5, 32)).sum().backward()
        layer.eval()
        with torch.no_grad():
            found = layer(torch.ones(2, 5, 32))
            sampling.revert()
            torch.testing.assert_close(found, layer(torch.ones(2, 5, 32)))


class Memory(unittest.TestCase):
    """What each module holds, as a share of what torch does."""

    def share(self, module, x, mode, bits=8):
        model = nn.ModuleList([module])
        held = []
        for sampling in (None, mode):
            if sampling:
                converted(model, mode, bits)
            with SavedBytes(model) as saved:
                module(x.clone().requires_grad_())
            held.append(saved.total)
        return held[1] / held[0]

    def test_shares(self):
        x = torch.randn(64, 512)
        for make, mode, bits, most in (
            (nn.ReLU, "exact", 8, 1 / 32),
            (nn.GELU, "packed", 8, 1 / 4),
            (nn.GELU, "packed", 4, 1 / 8),
            (nn.SiLU, "packed", 8, 1 / 4),
            (lambda: nn.LayerNorm(512), "packed", 8, 0.262),
            (lambda: nn.LayerNorm(512), "packed", 4, 0.137),
            (lambda: T5LayerNorm(512), "exact", 8, 0.502),
            (lambda: LlamaRMSNorm(512), "packed", 8, 0.132),
        ):
            with self.subTest(make, mode=mode, bits=bits):
                share = self.share(make(), x, mode, bits)
                self.assertTrue(0.9 * most < share < most + 0.01, share)

    def test_a_gated_unit(self):
        x = torch.randn(64, 64)
        for mode, bits, most in (("exact", 8, 2 / 3), ("packed", 8, 1 / 6), ("packed", 4, 1 / 12)):
            unit = LlamaMLP(LlamaConfig(hidden_size=64, intermediate_size=512))
            held = []
            for sampling in (None, mode):
                if sampling:
                    converted(nn.ModuleList([unit]), mode, bits)
                with SavedBytes(unit) as saved:
                    unit(x.clone().requires_grad_())
                held.append(saved.total - saved.linear)
            self.assertTrue(0.9 * most < held[1] / held[0] < 1.1 * most, held[1] / held[0])


if __name__ == "__main__":
    unittest.main()
