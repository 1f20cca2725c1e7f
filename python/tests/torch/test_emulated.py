"""The layers' tests once more on the package's CUDA path, with the emulator in a GPU's place."""

import unittest
from unittest import mock

import torch
from torch.utils.checkpoint import checkpoint

from wtacrs.torch import Error, convert, devices
from wtacrs.torch.linear import plans

from . import (
    test_attention,
    test_checkpointing,
    test_convert,
    test_estimates,
    test_held_bytes,
    test_layers,
    test_operators,
    test_packed,
    test_planning,
    test_ranks,
)
from .emulated import GPU, Emulated, needed, on_gpu
from .helpers import INPUTS, TOKENS, uneven


@needed
class Estimates(Emulated, test_estimates.Estimates):
    dtypes = (torch.float32,)
    # A GPU cuts long sums and adds the parts.
    rounding = {"rtol": 1e-5, "atol": 1e-4}


@needed
class SharedInput(Emulated, test_estimates.SharedInput):
    pass


@needed
class Conversion(Emulated, test_convert.Conversion):
    pass


@needed
class Memory(Emulated, test_convert.Memory):
    pass


@needed
class OneBudget(Emulated, unittest.TestCase):
    def test_the_memory_is_shared_out(self):
        for memory in (0.05, 0.3):
            made = test_planning.model()
            sampling = convert(made, memory=memory, seed=5)
            before = test_planning.budgets(sampling)
            test_planning.train(made, 3)
            self.assertNotEqual(test_planning.budgets(sampling), before)
            self.assertLessEqual(test_planning.share(sampling), memory * 1.001)


@needed
class Cases(Emulated, test_layers.Cases):
    pass


@needed
class Segments(Emulated, test_checkpointing.Segments):
    pass


@needed
class SeveralForwardPasses(Emulated, test_checkpointing.SeveralForwardPasses):
    pass


@needed
class Ranks(test_ranks.Ranks):
    path = staticmethod(on_gpu)


@needed
class PackedRanks(test_ranks.PackedRanks):
    path = staticmethod(on_gpu)


@needed
class PackedConversion(Emulated, test_packed.Conversion):
    pass


@needed
class PackedEstimates(Emulated, test_packed.Estimates):
    dtypes = (torch.bfloat16, torch.float16)
    # Of f64, which a GPU refuses. test_cases_overflow.py has rows that are not finite.
    test_a_row_that_is_out_of_range_is_named = None


@needed
class PackedAllRows(Emulated, test_packed.AllRows):
    pass


@needed
class PackedSharedInput(Emulated, test_packed.SharedInput):
    # Packed rows that were chosen have more parts.
    slack = 10 * 256


@needed
class PackedMemory(Emulated, test_packed.Memory):
    pass


@needed
class OperatorOutputs(Emulated, test_operators.Outputs):
    pass


@needed
class DroppedElements(Emulated, test_operators.Dropped):
    pass


@needed
class OperatorTraining(Emulated, test_operators.Training):
    draws = 100


@needed
class OperatorMemory(Emulated, test_operators.Memory):
    pass


@needed
class AttentionGradients(Emulated, test_attention.Gradients):
    draws_of_samples = 3
    # test_cuda_operators.py compares each draw with the host's, whose mean is known.
    test_unbiased = None


@needed
class AttentionDropout(Emulated, test_attention.Dropout):
    pass


@needed
class Padding(Emulated, test_attention.Padding):
    pass


@needed
class Hooks(Emulated, test_held_bytes.Hooks):
    pass


@needed
class ByOperator(Emulated, test_held_bytes.ByOperator):
    pass


@needed
class Engines(Emulated, unittest.TestCase):
    """The emulator has loops in the place of NVIDIA's library."""

    def test_gradients_differ_in_the_order_of_sums_alone(self):
        h, dz = uneven(TOKENS, INPUTS), uneven(TOKENS, 8)
        for bits in ("native", 4):
            made = {}
            for engine in ("own", "cublaslt"):
                kept = 0.3, bits, "wta-pivotal", "input"
                plan = plans.plan_for(GPU, (TOKENS, INPUTS, 8), h.dtype, *kept, engine, "f32")
                self.assertEqual(plan.native.multiplies_by, engine)
                made[engine] = plan.backward(plan.forward(h, None, None, 7, 1000), dz, True, True)
            for own, other in zip(made["own"], made["cublaslt"], strict=True):
                self.assertLess((other - own).norm(), 1e-6 * own.norm())

    def test_a_model(self):
        def gradient(engine):
            torch.manual_seed(0)
            model = torch.nn.Linear(INPUTS, 8)
            convert(model, 0.3, seed=5, engine=engine, sample_kept_inputs=True)
            model(uneven(TOKENS, INPUTS)).square().sum().backward()
            return model.weight.grad

        own, other = gradient("own"), gradient("cublaslt")
        self.assertLess((other - own).norm(), 1e-6 * own.norm())


@needed
class Captured(Emulated, unittest.TestCase):
    """As in a CUDA graph: a pass draws from a number on the device, which it advances, and so in every replay."""

    def setUp(self):
        super().setUp()
        self.enterContext(mock.patch.object(GPU, "captures", lambda: True))
        GPU.further_offset.zero_()

    def test_each_replay_draws_anew(self):
        h = uneven(TOKENS, INPUTS)
        plan = plans.plan_for(GPU, (TOKENS, INPUTS, 8), h.dtype, 0.3, 4, "wta-pivotal", "input", "auto", "f32")
        blocks = [plan.forward(h, None, None, 7, 1000) for _ in range(3)]
        self.assertEqual(int(GPU.further_offset), 3 * plan.draws)
        with mock.patch.object(GPU, "captures", lambda: False):
            for number, block in enumerate(blocks):
                again = plan.forward(h, None, None, 7 ^ devices.CAPTURED, number * plan.draws)
                dz = uneven(TOKENS, 8)
                self.assertTrue(torch.equal(plan.backward(block, dz, 0, 0)[0], plan.backward(again, dz, 0, 0)[0]))

    def test_masks_of_dropout(self):
        model = torch.nn.Dropout(0.5)
        convert(model, activations="exact", seed=3)
        x = torch.ones(64, 64, requires_grad=True)
        first, second = model(x), model(x)
        self.assertFalse(torch.equal(first, second))
        for y in (first, second):
            (gradient,) = torch.autograd.grad(y.sum(), x)
            self.assertTrue(torch.equal(gradient, y))
        with self.assertRaisesRegex(Error, "checkpointed segment of a CUDA graph"):
            checkpoint(model, x, use_reentrant=False).square().sum().backward()


if __name__ == "__main__":
    unittest.main()
