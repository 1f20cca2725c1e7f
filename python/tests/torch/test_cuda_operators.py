"""Operators on the CUDA path: on a GPU where there is one, and on the emulator where that is asked for."""

import contextlib
import unittest

import torch
from torch import nn

from wtacrs.torch import SavedBytes, convert

from . import emulated, test_attention, test_operators
from .helpers import gradients, unbiased, uneven, waiting_refused


class Embedded(nn.Module):
    """A model of transformers', from embeddings on."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        mask = test_attention.batch("right")[1].to(x.device)
        inputs = {"inputs_embeds": x, "attention_mask": mask}
        if self.model.config.is_encoder_decoder:
            inputs |= {"decoder_inputs_embeds": x, "decoder_attention_mask": mask, "use_cache": False}
        return self.model(**inputs).last_hidden_state * mask[..., None]


class FirstLayer(nn.Module):
    """Of a BERT model, which has no mask."""

    def __init__(self, model):
        super().__init__()
        self.model = model

    def forward(self, x):
        return self.model.encoder.layer[0](x)


class OperatorsOnCuda:
    """Activations, gated units, dropout, norms and attention: masks, codes and held bytes are the host's."""

    device = None

    def setUp(self):
        torch.set_float32_matmul_precision("highest")

    def passes(self, device, make, x, seed=3, hooks=False, **options):
        """The output, the gradients, and the bytes that are held."""
        torch.manual_seed(0)
        model = make().to(device).train()
        x = x.detach().clone().to(device).requires_grad_()
        sampling = convert(model, 1.0, bits="native", seed=seed, **options)
        torch.manual_seed(7)
        within = sampling.packed_saved_tensors() if hooks else contextlib.nullcontext()
        with SavedBytes(model) as saved, within:
            y = model(x)
        y.float().sin().sum().backward()
        tensors = [y.detach(), x.grad, *(p.grad for p in model.parameters() if p.grad is not None)]
        return [t.cpu() for t in tensors], saved.total

    def the_hosts(self, make, x, within, bit_equal_output=False, **options):
        """Tensors differ from the host's by at most this share of their length."""
        with emulated.on_host():
            expected, held = self.passes("cpu", make, x, **options)
        found, held_here = self.passes(self.device, make, x, **options)
        for this, other in zip(found, expected, strict=True):
            self.assertIs(this.dtype, other.dtype)
            self.assertLessEqual((this - other).float().norm(), within * other.float().norm() + 1e-6)
        if bit_equal_output:
            self.assertTrue(torch.equal(found[0], expected[0]))
        return expected, held, held_here

    def are_drawn(self, expected, make, x, within, **options):
        """Tensors of another seed differ by far more."""
        others = self.passes(self.device, make, x, seed=4, **options)[0]
        furthest = max((a - b).float().norm() / b.float().norm() for a, b in zip(others[1:], expected[1:]))
        self.assertGreater(furthest, 5 * within)

    def test_each_operator(self):
        x = uneven(6, test_operators.COLUMNS)
        activations, norms = test_operators.activations, test_operators.norms
        makes = [lambda name=name: activations()[name] for name in ("relu", "gelu", "gelu, tanh", "silu")]
        makes += [lambda name=name: norms()[name] for name in ("layer", "rms", "T5", "Llama")]
        makes.append(lambda: nn.Dropout(0.3))
        for dtype, rounding in test_operators.DTYPES.items():
            for make in makes:
                for bits in (None, 8, 4):
                    options = {"activations": "packed", "activation_bits": bits} if bits else {"activations": "exact"}
                    with self.subTest(make(), dtype=dtype, bits=bits):
                        made = lambda: nn.Sequential(make()).to(dtype)
                        # Where torch computes, devices round differently.
                        equal = bits is not None
                        _, held, here = self.the_hosts(made, x.to(dtype), 20 * rounding, equal, **options)
                        # Parts begin at multiples of 256.
                        self.assertLess(abs(here - held), 4 * 256)

    def test_gated_units(self):
        for mode in ("exact", "packed"):
            for name in ("Llama", "T5"):
                with self.subTest(name, mode=mode):
                    make = lambda: nn.Sequential(test_operators.gated_units(dropout=0.2)[name])
                    options = {"activations": mode, "activation_bits": 4}
                    expected, *_ = self.the_hosts(make, uneven(24, 32), 1e-3, **options)
                    if mode == "packed":
                        self.are_drawn(expected, make, uneven(24, 32), 1e-3, **options)

    def test_a_block_with_dropout(self):
        for mode in ("exact", "packed"):
            options = {"activations": mode, "activation_bits": 4}
            expected, *_ = self.the_hosts(test_operators.Block, uneven(24, 32), 5e-3, **options)
            self.are_drawn(expected, test_operators.Block, uneven(24, 32), 5e-3, **options)

    def test_attention_that_saves_probabilities(self):
        """Softmax, its dropout, Q, K and V; and everything else of a layer."""
        x = torch.randn(test_attention.BATCH, test_attention.LENGTH, 64, generator=torch.Generator().manual_seed(1))
        for name, model in test_attention.MODELS.items():
            for mode in ("exact", "packed"):
                with self.subTest(name, mode=mode):
                    make = lambda: Embedded(model(dropout=0.2, layers=1, implementation="eager"))
                    options = {"activations": mode, "activation_bits": 4}
                    expected, held, here = self.the_hosts(make, x, 5e-3, **options)
                    self.are_drawn(expected, make, x, 5e-3, **options)
                    self.assertLess(abs(here - held), 0.1 * held)

    def test_attention_by_torchs_kernels(self):
        """Which save what they like: Q, K, V, the output and sums of rows."""
        x = torch.randn(test_attention.BATCH, test_attention.LENGTH, 64, generator=torch.Generator().manual_seed(1))
        for name, model in test_attention.MODELS.items():
            for dtype, within in ((torch.float32, 0.05), (torch.bfloat16, 0.2)):
                with self.subTest(name, dtype=dtype):
                    make = lambda: Embedded(model(layers=1)).to(dtype)
                    exact, found = (
                        self.passes(self.device, make, x.to(dtype), skip=lambda name, m: skips, activations="packed")[0]
                        for skips in (True, False)
                    )
                    for this, other in zip(found, exact, strict=True):
                        self.assertLess((this - other).float().norm(), within * other.float().norm() + 1e-3)

    def test_dropout_of_probabilities_averages_out(self):
        """A GPU's kernel drops them as it goes, where torch has one."""
        x = torch.randn(4, 32, 64, generator=torch.Generator().manual_seed(1)).to(self.device)
        for mode in ("exact", "packed"):
            model = test_attention.bert(dropout=0.2, layers=1).to(self.device)
            attention = model.encoder.layer[0].attention.self
            # Linear in the output, so that the gradient is linear in the mask.
            loss = lambda: (attention(x)[0] * x.cos()).sum()
            exact = gradients(attention.eval(), loss)
            attention.train()
            convert(model, 1.0, bits="native", seed=3, activations=mode)
            torch.manual_seed(7)
            draws = [gradients(attention, loss) for _ in range(200)]
            for (name, _), true, *found in zip(attention.named_parameters(), exact, *draws):
                # A bias of all keys changes nothing.
                if name != "key.bias":
                    with self.subTest(name, mode=mode):
                        unbiased(self, iter([g.cpu() for g in found]).__next__, true.cpu(), draws=200)

    def test_saved_tensors_that_hooks_pack(self):
        make = lambda: nn.Sequential(nn.Linear(32, 256), nn.Sigmoid(), nn.Linear(256, 32), nn.Tanh())
        options = {"hooks": True, "activations": "packed", "activation_bits": 4}
        expected, *_ = self.the_hosts(make, uneven(128, 32), 1e-3, **options)
        self.are_drawn(expected, make, uneven(128, 32), 1e-3, **options)


@emulated.needed
class OperatorsOnTheEmulator(emulated.Emulated, OperatorsOnCuda, unittest.TestCase):
    device = "cpu"


@unittest.skipUnless(torch.cuda.is_available(), "torch finds no GPU here")
class OperatorsOnAGpu(OperatorsOnCuda, unittest.TestCase):
    device = "cuda"

    def test_a_step_waits_for_nothing(self):
        layer = lambda how: lambda: FirstLayer(test_attention.bert(dropout=0.2, layers=1, implementation=how))
        for make, width in ((test_operators.Block, 32), (layer("sdpa"), 64), (layer("eager"), 64)):
            for mode, budget in (("exact", 1.0), ("packed", 1.0), ("packed", 0.3)):
                model = make().to(self.device).train()
                x = uneven(4, 32, width).to(self.device).requires_grad_()
                convert(model, budget, activations=mode)
                # Contexts, plans and guesses are made in the first.
                model(x).sum().backward()
                with waiting_refused():
                    model(x).sum().backward()

    def test_outputs_under_autocast_have_torchs_dtypes(self):
        for make in (test_operators.norms, test_operators.activations, test_operators.gated_units):
            for name, module in make().items():
                for mode in ("exact", "packed"):
                    with self.subTest(name, mode=mode), torch.autocast("cuda", dtype=torch.bfloat16):
                        module = module.to(self.device)
                        width = 32 if make is test_operators.gated_units else test_operators.COLUMNS
                        given = torch.randn(6, width, generator=torch.Generator().manual_seed(1)).to(self.device)
                        for x in (given, given.bfloat16()):
                            expected = test_operators.passes(module, x)
                            sampling = test_operators.converted(nn.ModuleList([module]), mode)
                            found = test_operators.passes(module, x)
                            sampling.revert()
                            for this, exact in zip(found, expected, strict=True):
                                self.assertIs(this.dtype, exact.dtype)
                                error = (this - exact).float().norm()
                                self.assertLessEqual(error, 0.08 * exact.float().norm())


if __name__ == "__main__":
    unittest.main()
