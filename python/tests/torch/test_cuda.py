"""What is the CUDA path's own, on a GPU where there is one, and on the emulator where that is asked for."""

import concurrent.futures
import dataclasses
import unittest

import torch
import torch.distributed as distributed
from torch.utils.checkpoint import checkpoint

from wtacrs.torch import Error, devices
from wtacrs.torch import convert as packed

from . import emulated
from .helpers import (
    INPUTS,
    OUTPUTS,
    ROOM,
    TOKENS,
    Attention,
    always_sampled,
    gradients,
    linear,
    unbiased,
    uneven,
    waiting_refused,
    wrap,
)
from .helpers import convert_native as convert

SAMPLES, LENGTH = 8, TOKENS // 8
SOURCES = ("input", "predicted", "cached")


class CudaPath:
    device = None

    def setUp(self):
        self.enterContext(always_sampled())
        self.h = uneven(SAMPLES, LENGTH, INPUTS).to(self.device)
        # Padding on either side, and none.
        places, ends = torch.arange(LENGTH), torch.arange(LENGTH - SAMPLES, LENGTH)[:, None] + 1
        self.mask = torch.where(torch.arange(SAMPLES)[:, None] % 2 == 0, places < ends, places >= LENGTH - ends)
        self.on_device = self.mask.to(self.device)

    def step(self, model, sampling, h=None):
        h = self.h if h is None else h
        with sampling.batch(range(SAMPLES), self.mask):
            return gradients(model, lambda: (model(h).float().sin() * self.on_device[..., None]).sum())

    def test_unbiased(self):
        for source in SOURCES:
            model = wrap(linear()).to(self.device)
            loss = lambda: (model(self.h).sin() * self.on_device[..., None]).sum()
            exact = gradients(model, loss)
            sampling = convert(model, 0.3, source=source, seed=2, **ROOM)
            draws = [self.step(model, sampling) for _ in range(150)]
            torch.testing.assert_close(draws[0][1], exact[1], rtol=1e-4, atol=1e-4)
            unbiased(self, iter(weight.cpu() for weight, _ in draws).__next__, exact[0].cpu(), draws=150)

    def test_a_budget_of_all_is_exact_in_every_dtype(self):
        torch.set_float32_matmul_precision("highest")
        for dtype, bound in ((torch.float32, 1e-5), (torch.float16, 0.02), (torch.bfloat16, 0.05)):
            model, h = wrap(linear()).to(self.device, dtype), self.h.to(dtype)
            loss = lambda: (model(h).float().sin() * self.on_device[..., None]).sum()
            exact = gradients(model, loss)
            for source in SOURCES:
                sampling = convert(model, 1.0, source=source, **ROOM)
                found = self.step(model, sampling, h)
                for one, other in zip(found, exact):
                    self.assertIs(one.dtype, dtype)
                    self.assertLess((one - other).float().norm(), bound * other.float().norm())
                sampling.revert()

    def test_gradients_come_in_the_parameters_layout(self):
        """With one copy at most: a GPU writes f32 in_features x out_features, which torch copies itself."""
        for dtype in (torch.float32, torch.bfloat16):
            model = wrap(linear()).to(self.device, dtype)
            convert(model, 0.3)
            given = []
            model[0].weight.register_hook(given.append)
            gradients(model, lambda: model(self.h.to(dtype)).float().sum())
            self.assertEqual(given[0].is_contiguous(), dtype is torch.bfloat16)
            self.assertTrue(model[0].weight.grad.is_contiguous())

    def test_rows_that_do_not_lie_apart(self):
        """One row for all tokens, and a transpose."""
        for h in (self.h[0, :1].expand(TOKENS, INPUTS), self.h.reshape(INPUTS, TOKENS).T):
            model = wrap(linear()).to(self.device)
            exact = gradients(model, lambda: model(h).sum())
            convert(model, 1.0)
            torch.testing.assert_close(gradients(model, lambda: model(h).sum()), exact, rtol=1e-4, atol=1e-3)

    def test_threads_that_have_called_nothing_of_cuda(self):
        """Of a forward pass, and autograd's own: nothing but the library is called before the library."""
        model, h, dz = wrap(linear(bias=False)).to(self.device), self.h[0], torch.ones(LENGTH, OUTPUTS).to(self.device)
        convert(model, 1.0, source="input")
        passes = lambda: model(h).backward(dz)
        with concurrent.futures.ThreadPoolExecutor(1) as thread:
            thread.submit(passes).result()
        torch.testing.assert_close(model[0].weight.grad, dz.T @ h, rtol=1e-4, atol=1e-4)

    def test_f64_is_refused(self):
        model = wrap(linear()).to(self.device, torch.float64)
        convert(model, 0.3)
        with self.assertRaisesRegex(Error, "F64"):
            model(self.h.double())

    def test_the_selection_is_the_hosts(self):
        # Squares of whole numbers, whose sums are exact in any order.
        h = torch.randint(-9, 9, (TOKENS, INPUTS), generator=torch.Generator().manual_seed(1)).float()

        def weight(device):
            model = wrap(linear()).to(device)
            convert(model, 0.3, source="input", seed=5)
            return gradients(model, lambda: model(h.to(device)).sum())[0].cpu()

        with emulated.on_host():
            expected = weight("cpu")
        torch.testing.assert_close(weight(self.device), expected, rtol=1e-4, atol=1e-3)

    def test_packed_rows_are_the_hosts(self):
        # Whole numbers again: the same rows are chosen, and their codes are the same.
        h = torch.randint(-9, 9, (TOKENS, INPUTS), generator=torch.Generator().manual_seed(1)).float()

        def weight(device, budget, bits):
            model = wrap(linear()).to(device)
            packed(model, budget, source="input", bits=bits, seed=5)
            return gradients(model, lambda: model(h.to(device)).sum())[0].cpu()

        for budget in (0.3, 1.0):
            for bits in (8, 4, 2):
                with emulated.on_host():
                    expected = weight("cpu", budget, bits)
                torch.testing.assert_close(weight(self.device, budget, bits), expected, rtol=1e-4, atol=1e-2)

    def test_the_joint_norms_are_cached_wherever_padding_is(self):
        model = Attention().to(self.device)
        h = self.h.clone().requires_grad_()
        z = [layer(self.h).detach().requires_grad_() for layer in (model.query, model.key, model.value)]
        loss = lambda z: ((z[0] * z[1].sin() + z[2].square()) * self.on_device[..., None]).sum()
        loss(z).backward()
        expected = torch.cat([part.grad for part in z], 2).norm(dim=2).flatten()
        for checkpointed in (False, True):
            sampling = convert(model, 0.3, source="cached", **ROOM)
            both = lambda h: loss([model.query(h), model.key(h), model.value(h)])
            with sampling.batch(torch.arange(SAMPLES), self.mask):
                (checkpoint(both, h, use_reentrant=False) if checkpointed else both(h)).backward()
                self.assertEqual(list(sampling.guesses), ["query"])
                found = sampling.guesses["query"].prior(sampling.current_batch, TOKENS)
            torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
            sampling.revert()

    def test_states_go_from_device_to_device(self):
        for source in SOURCES:
            with emulated.on_host():
                host_model = wrap(linear())
                host = convert(host_model, 0.3, source=source, seed=1, **ROOM)
                with host.batch(range(SAMPLES), self.mask):
                    gradients(host_model, lambda: host_model(self.h.cpu()).sin().sum())
                state = host.state_dict()
            model = wrap(linear()).to(self.device)
            sampling = convert(model, 0.3, source=source, **ROOM)
            sampling.load_state_dict(state)
            # The layer's first step moves the guess.
            if source != "input":
                sampling.guesses["0"].move(devices.device_of(self.h.device))
                self.assertTrue(sampling.guesses["0"].device.on_gpu)
            self.assertTrue(torch.equal(sampling.state_dict()["guesses"]["0"], state["guesses"]["0"]))
            self.step(model, sampling)
            with emulated.on_host():
                host.load_state_dict(sampling.state_dict())
                self.assertEqual((host.seed, host.offset), (sampling.seed, sampling.offset))
                with host.batch(range(SAMPLES), self.mask):
                    gradients(host_model, lambda: host_model(self.h.cpu()).sin().sum())

    def test_a_cache_needs_room_that_fits(self):
        model = wrap(linear()).to(self.device)
        sampling = convert(model, 0.3, source="cached")
        with self.assertRaisesRegex(Error, "tokens_per_sample"), sampling.batch(range(SAMPLES), self.mask):
            model(self.h)
        sampling.revert()
        sampling = convert(model, 0.3, source="cached", samples=SAMPLES, tokens_per_sample=LENGTH)
        for ids, mask, words in (
            (range(1, SAMPLES + 1), self.mask, f"sample {SAMPLES} "),
            (range(-1, SAMPLES - 1), self.mask, "sample -1 "),
            (range(1), torch.ones(1, LENGTH + 1), f"{LENGTH + 1} tokens"),
        ):
            with self.assertRaisesRegex(Error, words), sampling.batch(ids, mask):
                pass
        self.step(model, sampling)
        # Ids that lie on the GPU are not looked at; the state reports what was left out.
        sampling.settings = dataclasses.replace(sampling.settings, samples=None, tokens_per_sample=None)
        with sampling.batch(torch.arange(SAMPLES, 2 * SAMPLES, device=self.device), self.on_device):
            gradients(model, lambda: model(self.h).sum())
        with self.assertWarnsRegex(UserWarning, f"sample {SAMPLES}: its id"):
            sampling.state_dict()

    def test_norms_that_overflow_are_not_cached(self):
        model = wrap(linear()).to(self.device)
        sampling = convert(model, 0.3, source="cached", **ROOM)
        with sampling.batch(range(SAMPLES), self.mask):
            z = model(self.h)
            z.backward(torch.full_like(z, torch.inf))
            prior = sampling.guesses["0"].prior(sampling.current_batch, TOKENS).reshape(SAMPLES, LENGTH)
        self.assertTrue((prior[self.on_device] == -1).all())
        sampling.state_dict()


@emulated.needed
class OnTheEmulator(emulated.Emulated, CudaPath, unittest.TestCase):
    device = "cpu"


@unittest.skipUnless(torch.cuda.is_available(), "torch finds no GPU here")
class OnAGpu(CudaPath, unittest.TestCase):
    device = "cuda"

    def test_a_step_waits_for_nothing(self):
        for source, bits, budget in [*((s, b, 0.3) for s in SOURCES for b in ("native", 4)), ("input", 2, 1.0)]:
            for model in (wrap(linear()).to(self.device), Attention().to(self.device)):
                sampling = packed(model, budget, source=source, bits=bits, **ROOM)
                loss = lambda: model(self.h).sum()

                def step():
                    with sampling.batch(range(SAMPLES), self.mask):
                        loss().backward()

                # Contexts, plans and guesses are made in the first.
                step()
                with waiting_refused():
                    step()

    def test_an_exchange_by_nccl(self):
        store = distributed.HashStore()
        distributed.init_process_group("nccl", store=store, rank=0, world_size=1)
        self.addCleanup(distributed.destroy_process_group)
        for source in ("predicted", "cached"):
            model = wrap(linear()).to(self.device)
            sampling = convert(model, 0.3, source=source, process_group=distributed.group.WORLD, **ROOM)
            for _ in range(2):
                self.step(model, sampling)
                before = sampling.guesses["0"].to_bytes()
                sampling.exchange()
                self.assertFalse(torch.equal(sampling.guesses["0"].to_bytes(), before))


if __name__ == "__main__":
    unittest.main()
