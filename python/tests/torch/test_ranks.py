"""Two gloo processes under DistributedDataParallel."""

import contextlib
import copy
import os
import tempfile
import unittest
from unittest import mock

import torch
import torch.distributed as distributed
import torch.multiprocessing as multiprocessing
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from wtacrs.torch import convert as packed
from wtacrs.torch import devices
from wtacrs.torch.linear import rank_exchange
from wtacrs.torch.linear.guesses import SOURCES
from wtacrs.torch.linear.planning import is_due

from .helpers import INPUTS, Attention, unbiased, uneven
from .helpers import convert_native as convert

RANKS = 2
HALF, LENGTH = 8, 15

# Ids of samples, which may be large where their number is not given.
FIRST = 2**60
ROOM = {"samples": 1000, "tokens_per_sample": LENGTH}


def gathered(value):
    everywhere = [None] * RANKS
    distributed.all_gather_object(everywhere, value)
    return everywhere


def on_gpu():
    return devices.device_of(torch.device("cpu")).on_gpu


def setting(rank, source, seed=None, convert=convert, budget=0.3):
    """A model on every rank, and the batch of all ranks with this rank's part of it."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Tanh(), Attention())
    exact = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Tanh(), Attention())
    exact.load_state_dict(model.state_dict())
    # Tanh keeps its output, which Q, K and V read.
    options = {"sample_kept_inputs": True, **(ROOM if on_gpu() else {})}
    sampling = convert(model, budget, source=source, seed=seed, process_group=distributed.group.WORLD, **options)
    h = uneven(RANKS * HALF, LENGTH, INPUTS, seed=4)
    return DistributedDataParallel(model), sampling, exact, h, h[rank * HALF : (rank + 1) * HALF]


def averages_are_unbiased(rank, test):
    for source in ("predicted", "cached"):
        parallel, sampling, exact, h, mine = setting(rank, source, seed=6)
        (exact(h) / RANKS).backward()
        ids = range(rank * HALF, (rank + 1) * HALF)

        def draw():
            parallel.zero_grad()
            with sampling.batch(ids, torch.ones(HALF, LENGTH)):
                parallel(mine).backward()
            sampling.exchange()
            return {name: p.grad.clone() for name, p in parallel.module.named_parameters()}

        draws = [draw() for _ in range(100)]
        for name in ("0.weight", "2.key.weight", "2.value.weight"):
            estimates = iter(draw[name] for draw in draws)
            unbiased(test, estimates.__next__, exact.get_parameter(name).grad, len(draws))
        weights = gathered(parallel.module.get_parameter("0.weight").grad)
        test.assertTrue(torch.equal(*weights), "ranks step differently")


def ranks_draw_for_themselves(rank, test):
    _, sampling, _, h, _ = setting(rank, "input", seed=6)
    z = sampling.layers["0"](h)
    z.sum().backward()
    weights = gathered(sampling.layers["0"].weight.grad)
    test.assertFalse(torch.equal(*weights))
    sampling.exchange()


def predictors_stay_equal(rank, test):
    parallel, sampling, _, _, mine = setting(rank, "predicted")
    for step in range(4):
        # Two forward and backward passes for each exchange; one rank has fewer tokens.
        for part in (mine[: 3 + rank], mine[3:]):
            parallel(part + step).backward()
        before = sampling.guesses["0"].to_bytes()
        sampling.exchange()
        test.assertFalse(torch.equal(sampling.guesses["0"].to_bytes(), before), "nothing was learned")
    test.assertEqual(sorted(sampling.guesses), ["0", "2.query"])
    for name, guess in sampling.guesses.items():
        bytes_of_ranks = gathered(guess.to_bytes())
        test.assertTrue(torch.equal(*bytes_of_ranks), name)


def caches_follow_samples(rank, test):
    parallel, sampling, exact, _, mine = setting(rank, "cached")
    # Sentences of other lengths on each rank, and ids that are large.
    length = LENGTH - 4 * rank
    part = mine[:, :length]
    ids = torch.arange(HALF) + (0 if on_gpu() else FIRST) + 100 * rank
    mask = torch.arange(length) < torch.arange(length - HALF + 1, length + 1)[:, None]
    with sampling.batch(ids, mask):
        parallel(part).backward()
    sampling.exchange()
    part = part.clone().requires_grad_()
    hidden = exact[1](exact[0](part)).detach().requires_grad_()
    z = [layer(hidden) for layer in exact[2].children()]
    for each in z:
        each.retain_grad()
    (z[0] * z[1].sin() + z[2].square()).sum().backward()
    norms = torch.cat([each.grad for each in z], 2).norm(dim=2)
    # What the other rank has seen, as this rank's cache has it.
    for other_ids, other_mask, other_norms in gathered((ids, mask, norms)):
        with sampling.batch(other_ids, other_mask):
            prior = sampling.guesses["2.query"].prior(sampling.current_batch, other_mask.numel())
        torch.testing.assert_close(prior, (other_norms * other_mask).flatten(), rtol=1e-3, atol=1e-5)
    everywhere = gathered(sampling.guesses["0"].to_bytes().sort().values)
    test.assertTrue(torch.equal(*everywhere))


def one_collective_a_step(rank, test):
    for source, collective, of_first_step in (("predicted", "all_reduce", 1), ("cached", "all_gather", 2)):
        parallel, sampling, _, _, mine = setting(rank, source)

        def messages(step, length):
            # A sample has one length for ever.
            ids = torch.arange(HALF) + 100 * rank + 10 * step
            with sampling.batch(ids, torch.ones(HALF, length)):
                parallel(mine[:, :length]).backward()
            with mock.patch.object(distributed, collective, wraps=getattr(distributed, collective)) as sent:
                sampling.exchange()
            return len(sent.mock_calls)

        # Longer messages than before are announced in one of the old length; ranks differ in what they need.
        lengths = (LENGTH - 2, LENGTH - 4 * rank, LENGTH - 3)
        found = [messages(step, length) for step, length in enumerate(lengths)]
        test.assertEqual(found, [of_first_step, of_first_step, 1])


def packed_rows(rank, test):
    """Of all rows nothing is exchanged, and ranks step alike near the exact gradient. A sample's ranks learn alike."""
    for budget in (1.0, 0.3):
        parallel, sampling, exact, h, mine = setting(rank, "predicted", seed=6, convert=packed, budget=budget)
        (exact(h) / RANKS).backward()
        for _ in range(2):
            parallel.zero_grad()
            parallel(mine).backward()
            with mock.patch.object(distributed, "all_reduce", wraps=distributed.all_reduce) as sent:
                sampling.exchange()
            test.assertEqual(len(sent.mock_calls), int(budget < 1))
        for name in ("0.weight", "2.key.weight", "2.value.weight"):
            found, right = parallel.module.get_parameter(name).grad, exact.get_parameter(name).grad
            test.assertTrue(torch.equal(*gathered(found)), "ranks step differently")
            if budget == 1.0:
                test.assertLess((found - right).norm(), 0.1 * right.norm())
        for guess in sampling.guesses.values():
            test.assertTrue(torch.equal(*gathered(guess.to_bytes())))
        test.assertEqual(len(sampling.guesses), 2 if budget < 1 else 0)


def operators_draw_for_themselves(rank, test):
    """Torch's generators are alike on all ranks; masks and dithers are not. What is drawn averages out."""
    torch.manual_seed(0)
    hidden = 4 * INPUTS
    model = nn.Sequential(
        nn.LayerNorm(INPUTS), nn.Linear(INPUTS, hidden), nn.GELU(), nn.Linear(hidden, INPUTS), nn.Dropout(0.25)
    )
    # The loss is linear in what dropout leaves, so that the gradient's mean is the one without it.
    exact = copy.deepcopy(model).eval()
    options = {"activations": "packed", "activation_bits": 4}
    convert(model, 1.0, seed=6, process_group=distributed.group.WORLD, **options)
    h = uneven(RANKS * HALF, LENGTH, INPUTS, seed=4)
    loss = lambda model, h: (model(h) * h.cos()).sum()
    test.assertFalse(torch.equal(*gathered(model(h) == 0)), "ranks draw one mask")
    model[:3](h).sum().backward()
    test.assertFalse(torch.equal(*gathered(model[0].weight.grad)), "ranks draw the same dithers")
    parallel, mine = DistributedDataParallel(model), h[rank * HALF : (rank + 1) * HALF]
    (loss(exact, h) / RANKS).backward()

    def draw():
        parallel.zero_grad()
        loss(parallel, mine).backward()
        return {name: p.grad.clone() for name, p in model.named_parameters()}

    draws = [draw() for _ in range(200)]
    for name, parameter in exact.named_parameters():
        unbiased(test, iter([draw[name] for draw in draws]).__next__, parameter.grad, len(draws))
    test.assertTrue(torch.equal(*gathered(model[0].weight.grad)), "ranks step differently")


def layers_that_only_some_ranks_use(rank, test):
    """As experts are: of each rank's layers in a step the guesses of all ranks learn."""
    # One in the first step, another one later, one that nobody has in the end, and one that both use at last.
    steps = (
        (["0"], ["2.key"]),
        (["0", "2.value"], ["0"]),
        (["0"], []),
        ([], []),
        (["2.query"], ["2.query", "0"]),
    )
    for source in ("predicted", "cached"):
        _, sampling, _, h, _ = setting(rank, source)
        for step, used in enumerate(steps):
            ids = torch.arange(HALF) + 100 * rank + 1000 * step
            with sampling.batch(ids if not on_gpu() else ids % 1000, torch.ones(HALF, LENGTH)):
                for name in used[rank]:
                    # Another H for each: what one layer reads first, no other one owns.
                    sampling.layers[name](h[:HALF] + step + len(name)).sum().backward()
            sampling.exchange()
        sampling.exchange()
        test.assertEqual(sorted(sampling.guesses), ["0", "2.key", "2.query", "2.value"])
        fresh = SOURCES[source](INPUTS, sampling.settings.room).to_bytes()
        for name, guess in sorted(sampling.guesses.items()):
            found = gathered(guess.to_bytes().sort().values if source == "cached" else guess.to_bytes())
            test.assertTrue(torch.equal(*found), f"{source} {name}")
            test.assertFalse(torch.equal(guess.to_bytes(), fresh), f"{source} {name} has learned nothing")


def sums_wait_for_the_agreement(rank, test):
    """What a rank learns of a new layer before the others know of it is not lost: it is added when they do."""
    _, sampling, _, h, _ = setting(rank, "predicted", seed=1)
    layer = sampling.layers["2.key"]
    sampling.layers["0"](h).sum().backward()
    sampling.exchange()
    if rank == 1:
        layer(h).sum().backward()
        pending = sampling.guesses["2.key"].pending.clone()
    with mock.patch.object(distributed, "all_gather_object", side_effect=AssertionError):
        sampling.exchange()
    if rank == 1:
        test.assertTrue(torch.equal(sampling.guesses["2.key"].pending, pending))
    else:
        test.assertNotIn("2.key", sampling.guesses)
    sampling.exchange()
    alone = SOURCES["predicted"](INPUTS, None)
    alone.move(sampling.guesses["2.key"].device)
    alone.apply(gathered(pending.cpu() if rank == 1 else None)[1])
    test.assertTrue(torch.equal(sampling.guesses["2.key"].to_bytes(), alone.to_bytes()))
    with mock.patch.object(distributed, "all_gather_object", side_effect=AssertionError):
        sampling.exchange()


def worker(rank, check, path, store):
    torch.set_num_threads(1)
    distributed.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=RANKS)
    with path():
        check(rank, unittest.TestCase())
    # A rank that ends while another still talks to it can end it, too.
    distributed.barrier()
    distributed.destroy_process_group()
    # Threads of torch's own may outlive the group. Now and then they abort a process that ends in the usual way.
    os._exit(0)


class Processes(unittest.TestCase):
    # What a process enters before its check.
    path = staticmethod(contextlib.nullcontext)

    def run_ranks(self, check):
        with tempfile.TemporaryDirectory() as folder:
            # New processes: the library's threads do not survive a fork.
            multiprocessing.spawn(worker, (check, self.path, f"{folder}/store"), nprocs=RANKS)


class PackedRanks(Processes):
    def test_packed_rows(self):
        self.run_ranks(packed_rows)


def budgets_stay_equal(rank, test):
    for source in SOURCES:
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.Tanh(), Attention())
        options = {"sample_kept_inputs": True, **(ROOM if on_gpu() else {})}
        sampling = packed(model, memory=0.2, source=source, process_group=distributed.group.WORLD, **options)
        budgets = lambda sampling=sampling: {
            name: (layer.budget, layer.bits) for name, layer in sampling.sampled.items()
        }
        parallel, before = DistributedDataParallel(model), budgets()
        h = uneven(RANKS * HALF, LENGTH, INPUTS, seed=4)[rank * HALF : (rank + 1) * HALF]
        for step in range(9):
            with sampling.batch(range(rank * HALF, (rank + 1) * HALF), torch.ones(HALF, LENGTH)):
                parallel(h + step).backward()
            sampling.exchange()
            test.assertEqual(*gathered(budgets()))
            if is_due(step + 1):
                test.assertEqual(*gathered(sampling.planning.state_dict()["planner"].tolist()))
        test.assertNotEqual(budgets(), before)


class Ranks(Processes):
    def test_averages_are_unbiased(self):
        self.run_ranks(averages_are_unbiased)

    def test_ranks_draw_for_themselves(self):
        self.run_ranks(ranks_draw_for_themselves)

    def test_operators_draw_for_themselves(self):
        self.run_ranks(operators_draw_for_themselves)

    def test_predictors_stay_equal(self):
        self.run_ranks(predictors_stay_equal)

    def test_caches_follow_samples(self):
        self.run_ranks(caches_follow_samples)

    def test_budgets_stay_equal(self):
        self.run_ranks(budgets_stay_equal)

    def test_one_collective_a_step(self):
        self.run_ranks(one_collective_a_step)

    def test_layers_that_only_some_ranks_use(self):
        self.run_ranks(layers_that_only_some_ranks_use)

    def test_sums_wait_for_the_agreement(self):
        self.run_ranks(sums_wait_for_the_agreement)


class Backends(unittest.TestCase):
    """Where messages lie; no GPU is needed to see it."""

    def test_the_groups_device(self):
        for backend, device in (("gloo", "cpu"), ("nccl", "cuda:1"), ("cpu:gloo,cuda:nccl", "cuda:1")):
            with (
                mock.patch.object(distributed, "get_backend", lambda group: backend),
                mock.patch.object(torch.cuda, "current_device", lambda: 1),
            ):
                self.assertEqual(rank_exchange.message_device(None), torch.device(device))

    def test_messages_lie_there(self):
        for source, collective in (("predicted", "all_reduce"), ("cached", "all_gather")):
            sampling = convert(nn.Sequential(nn.Linear(INPUTS, INPUTS)), 0.3, source=source)
            sampling.guess("0", INPUTS)
            sampling.group = object()
            sampling.agreement.features = {"0": INPUTS}
            sampling.agreement.note(torch.zeros(1))
            with (
                mock.patch.object(rank_exchange, "message_device", lambda group: torch.device("meta")),
                mock.patch.object(distributed, "get_world_size", lambda group: RANKS),
                mock.patch.object(distributed, collective, side_effect=InterruptedError) as sent,
                self.assertRaises(InterruptedError),
            ):
                sampling.exchange()
            self.assertEqual(sent.call_args.args[-1].device.type, "meta")


if __name__ == "__main__":
    unittest.main()
