"""Tensors of other types and devices than the library's: what torch's Linear takes, a converted one takes as well."""

import tempfile
import unittest
import warnings

import torch
import torch.distributed as distributed
from torch import nn
from transformers import BertConfig, BertModel

from wtacrs.torch import SavedBytes
from wtacrs.torch import convert as packed

from .helpers import INPUTS, OUTPUTS, ROOM, TOKENS, Attention, always_sampled, gradients, linear, unbiased, uneven, wrap
from .helpers import convert_native as convert


class DefaultDevice(unittest.TestCase):
    """Whatever torch's default device and dtype, what is made on the host is made there, in its own dtype."""

    def setUp(self):
        self.enterContext(always_sampled())
        self.addCleanup(torch.set_default_device, None)
        self.addCleanup(torch.set_default_dtype, torch.float32)

    def defaults(self):
        yield None, torch.float32
        yield "meta", torch.float32
        yield "meta", torch.float64

    def run_with(self, make, step, **options):
        """Gradients of two steps, and the state, under each default."""
        found = []
        for device, dtype in self.defaults():
            model = make()
            torch.manual_seed(7)
            torch.set_default_device(device)
            torch.set_default_dtype(dtype)
            sampling = packed(model, 0.3, **options)
            steps = [step(model, sampling) for _ in range(2)]
            state = sampling.state_dict()
            sampling.load_state_dict(state)
            torch.set_default_device(None)
            torch.set_default_dtype(torch.float32)
            self.assertEqual({data.device.type for data in state["guesses"].values()}, {"cpu"})
            found.append((steps, state["guesses"]))
        for pair in found[1:]:
            torch.testing.assert_close(pair, found[0], rtol=0, atol=0)

    def test_layers(self):
        h = uneven(8, TOKENS // 8, INPUTS)
        mask = torch.arange(TOKENS // 8) < torch.arange(20, 28)[:, None]

        def step(model, sampling):
            # Ids as a list and as a tensor, masks as both.
            for ids, given in ((range(8), mask), (torch.arange(8, device="cpu"), mask.tolist())):
                with sampling.batch(ids, given):
                    found = gradients(model, lambda: (model(h).sin() * mask[..., None]).sum())
            return found

        for source in ("input", "predicted", "cached"):
            self.run_with(lambda: wrap(linear()), step, source=source, **ROOM)

        def one_row_a_sample(model, sampling):
            with sampling.batch(range(8)):
                return gradients(model, lambda: model(h[:, 0]).sum())

        self.run_with(lambda: wrap(linear()), one_row_a_sample, source="cached", **ROOM)

    def test_a_model_with_operators(self):
        widths = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
        ids = torch.randint(1, 50, (3, 20), generator=torch.Generator().manual_seed(1))
        mask = torch.ones_like(ids)
        mask[0, 12:] = 0

        def make(dropout):
            torch.manual_seed(0)
            drops = {"attention_probs_dropout_prob": dropout, "hidden_dropout_prob": dropout}
            config = BertConfig(vocab_size=50, **widths, **drops)
            return BertModel(config, add_pooling_layer=False).train()

        def step(model, sampling):
            with sampling.packed_saved_tensors():
                loss = model.encoder(model.embeddings(ids, position_ids=places, token_type_ids=types)).last_hidden_state
            loss.square().sum().backward()
            found = [p.grad.clone() for p in model.encoder.parameters()]
            model.zero_grad()
            return found

        places, types = torch.arange(20)[None], torch.zeros_like(ids)
        for dropout in (0.1, 0.0):
            for options in ({}, {"tensor_mul": 0.3}):
                self.run_with(lambda: make(dropout), step, activations="packed", **options)


class Types(unittest.TestCase):
    def setUp(self):
        self.enterContext(always_sampled())

    def test_the_meta_device(self):
        model = nn.Sequential(nn.LayerNorm(INPUTS), linear(), nn.GELU(), nn.Dropout(0.1)).to("meta")
        sampling = packed(model, 0.3, activations="packed")
        h = torch.empty(3, 5, INPUTS, device="meta")
        for enabled in (False, True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=enabled):
                z = model(h)
            z.sum().backward()
            self.assertEqual((z.shape, z.device.type), ((3, 5, OUTPUTS), "meta"))
            self.assertEqual(model[1].weight.grad.device.type, "meta")
        self.assertEqual((sampling.offset, sampling.left_exact), (0, []))
        # A model that is made on meta and then gets its memory.
        model.to_empty(device="cpu")
        for parameter in model.parameters():
            nn.init.normal_(parameter)
        model.zero_grad()
        model(uneven(3, 5, INPUTS)).sum().backward()
        self.assertGreater(sampling.offset, 0)

    def jagged(self, **options):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            parts = [uneven(length, INPUTS, seed=length) for length in (30, 10, 70)]
            return torch.nested.nested_tensor(parts, **options)

    def test_rows_of_jagged_tensors_are_sampled(self):
        h = self.jagged(layout=torch.jagged, requires_grad=True)
        model = Attention()
        loss = lambda: (model.query(h) * model.key(h).sin() + model.value(h)).values().square().sum()
        exact = gradients(model, loss)
        expected_h, h.grad = h.grad.values(), None
        sampling = convert(model, 0.3, seed=5)
        gradients(model, loss)
        # One selection of 110 rows.
        self.assertEqual((sampling.offset, sampling.left_exact), (128, []))
        self.assertEqual(list(sampling.guesses), ["query"])
        torch.testing.assert_close(h.grad.values(), expected_h)
        # torch cannot add to such a gradient.
        h = h.detach()
        unbiased(self, lambda: gradients(model, loss)[2], exact[2], draws=150)
        with torch.no_grad():
            self.assertEqual(model.eval().query(h).shape, (3, h.shape[1], OUTPUTS))

    def test_other_nested_tensors(self):
        cached = {"source": "cached", **ROOM}
        for h, options in ((self.jagged(layout=torch.jagged), cached), (self.jagged(layout=torch.strided), {})):
            model = wrap(linear())
            exact = gradients(model, lambda: sum(part.sin().sum() for part in model(h).unbind()))
            sampling = convert(model, 0.3, **options)
            found = gradients(model, lambda: sum(part.sin().sum() for part in model(h).unbind()))
            torch.testing.assert_close(found, exact)
            self.assertEqual(sampling.offset, 0)
            self.assertRegex(dict(sampling.left_exact)["0"], "NestedTensor|nested")
            with SavedBytes(model):
                model(h)

    def test_jagged_tensors_that_torch_refuses(self):
        gaps = torch.nested.narrow(uneven(3, 40, INPUTS), 1, 0, torch.tensor([30, 10, 40]), layout=torch.jagged)
        model = wrap(linear())
        with self.assertRaisesRegex(ValueError, "contiguous jagged"):
            model(gaps)
        convert(model, 0.3)
        with self.assertRaisesRegex(ValueError, "contiguous jagged"):
            model(gaps)

    def test_sparse_inputs(self):
        h = torch.eye(INPUTS).to_sparse()
        model = wrap(linear(bias=False))
        expected = model(h.to_dense())
        sampling = convert(model, 0.3)
        with SavedBytes(model):
            torch.testing.assert_close(model(h), expected)
        self.assertEqual(dict(sampling.left_exact), {"0": "its input is a tensor of layout sparse_coo"})

    def test_complex(self):
        model = wrap(linear(dtype=torch.complex64))
        h = torch.randn(TOKENS, INPUTS, dtype=torch.complex64)
        exact = gradients(model, lambda: model(h).abs().sum())
        sampling = convert(model, 0.3)
        torch.testing.assert_close(gradients(model, lambda: model(h).abs().sum()), exact)
        self.assertEqual([name for name, _ in sampling.left_exact], ["0"])

    def test_a_subclass(self):
        class Marked(torch.Tensor):
            pass

        h = uneven(TOKENS, INPUTS).as_subclass(Marked)
        model = wrap(linear())
        sampling = convert(model, 0.3)
        self.assertIs(type(model(h)), Marked)
        self.assertEqual(dict(sampling.left_exact), {"0": "its input is a Marked"})

    def test_negated_views(self):
        """Whose elements are not what lies in memory."""
        pairs = torch.view_as_complex(uneven(TOKENS, INPUTS, 2))
        h, same = pairs.conj().imag, pairs.imag
        self.assertTrue(h.is_neg())
        model = Attention()
        exact = gradients(model, lambda: model(h) + model.query(same).sum())
        convert(model, 1.0)
        found = gradients(model, lambda: model(h) + model.query(same).sum())
        torch.testing.assert_close(found, exact, rtol=1e-4, atol=1e-3)
        # And such gradients.
        model, h = nn.Sequential(linear(), nn.GELU()), uneven(TOKENS, INPUTS)
        loss = lambda: torch.complex(torch.zeros(TOKENS, OUTPUTS), model(h)).conj().imag.sin().sum()
        exact = gradients(model, loss)
        packed(model, 1.0, bits=8, activations="packed")
        for found, right in zip(gradients(model, loss), exact):
            self.assertLess((found - right).norm(), 0.02 * right.norm())

    def test_dtensors(self):
        from torch.distributed.device_mesh import init_device_mesh
        from torch.distributed.fsdp import fully_shard
        from torch.distributed.tensor import DTensor
        from torch.distributed.tensor.parallel import ColwiseParallel, RowwiseParallel, parallelize_module

        with tempfile.TemporaryDirectory() as folder:
            distributed.init_process_group("gloo", init_method=f"file://{folder}/store", rank=0, world_size=1)
            self.addCleanup(distributed.destroy_process_group)
            mesh = init_device_mesh("cpu", (1,))
        h = uneven(TOKENS, INPUTS)
        make = lambda: nn.Sequential(linear(), nn.GELU(), nn.LayerNorm(OUTPUTS), nn.Linear(OUTPUTS, INPUTS))

        def run(model):
            found = gradients(model, lambda: model(h).sin().sum())
            return [g.full_tensor() if isinstance(g, DTensor) else g for g in found]

        model = make()
        exact = run(model)
        plan = {"0": ColwiseParallel(), "3": RowwiseParallel()}
        sampling = packed(model, 0.3, activations="packed", skip=["1", "2"])
        parallelize_module(model, mesh, plan)
        torch.testing.assert_close(run(model), exact, rtol=1e-4, atol=1e-4)
        self.assertEqual({reason for _, reason in sampling.left_exact}, {"its input is a DTensor"})
        self.assertEqual(sampling.offset, 0)
        # Between gathering and freeing, fully_shard's parameters are plain tensors: such layers are served.
        model = make()
        sampling = packed(model, 1.0, bits=8, activations="packed")
        fully_shard(model, mesh=mesh)
        for found, right in zip(run(model), exact):
            self.assertLess((found - right).norm(), 0.05 * right.norm())
        self.assertEqual(sampling.left_exact, [])
        self.assertGreater(sampling.offset, 0)


if __name__ == "__main__":
    unittest.main()
