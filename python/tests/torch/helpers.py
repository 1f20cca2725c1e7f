"""What the tests share: uneven rows, a small model, conversion, and the check of an estimate's mean."""

import contextlib
import functools
import math
import os
import subprocess
import sys
from unittest import mock

import torch
from torch import nn

from wtacrs.torch import convert, sampling
from wtacrs.torch.choosing import choice
from wtacrs.torch.linear import plans

# Where a test is of what packing plays no part in, or of exact copies.
convert_native = functools.partial(convert, bits="native", sample_kept_inputs=True)

TOKENS, INPUTS, OUTPUTS = 240, 32, 24
# The room that a GPU's norm cache needs for the tests' data sets.
ROOM = {"samples": TOKENS, "tokens_per_sample": TOKENS}
# A mean of so many draws is this many standard errors from the truth about once in 10^6 tests.
DEVIATIONS = 5


def uneven(*shape, seed=0):
    """Rows of very different lengths, as activations have them."""
    generator = torch.Generator().manual_seed(seed)
    scales = torch.randn(*shape[:-1], 1, generator=generator).exp()
    return torch.randn(*shape, generator=generator) * scales


def linear(seed=0, **options):
    torch.manual_seed(seed)
    return nn.Linear(INPUTS, OUTPUTS, **options)


def wrap(layer):
    return nn.Sequential(layer)


@contextlib.contextmanager
def always_sampled():
    """While it is entered, layers save rows even where these take more memory than the input, or hardly less."""
    with (
        mock.patch.object(plans, "saves_less", lambda saved, exact: True),
        mock.patch.object(choice, "why_narrow", lambda *sizes: None),
        mock.patch.object(plans, "why_short", lambda tokens: None),
    ):
        sampling.why_exact.cache_clear()
        yield
    sampling.why_exact.cache_clear()


@contextlib.contextmanager
def waiting_refused():
    """While it is entered, a call of torch's that waits for the GPU raises an error."""
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def run_python(*arguments, **variables):
    """Runs Python in a process that finds the modules that this one finds. Returns its errors, or None if it ends
    well."""
    found = os.pathsep.join(filter(None, sys.path))
    done = subprocess.run(
        [sys.executable, "-P", *arguments],
        env={**os.environ, "PYTHONPATH": found, **variables},
        capture_output=True,
        text=True,
        timeout=1200,
    )
    return done.stderr if done.returncode else None


def gradients(model, loss):
    model.zero_grad()
    loss().backward()
    return [None if p.grad is None else p.grad.clone() for p in model.parameters()]


def block_of(sampling, h):
    """The block that layers share which read h, if somebody holds it. The layer that read h first names its form."""
    layer = next(iter(sampling.layers.values())).sampled
    return sampling._inputs.of(h, (h.dtype, layer.budget, layer.bits)).block


def unbiased(test, draw, exact, draws=300):
    """The mean of draws is within a few standard errors of `exact`: in total, and along a fixed direction."""
    exact = exact.double()
    direction = torch.randn(exact.shape, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    errors = torch.stack([draw().double() - exact for _ in range(draws)])
    along = (errors * direction).flatten(1).sum(1)
    test.assertGreater(along.std(), 0, "nothing was drawn")
    test.assertLess(abs(along.mean()), DEVIATIONS * along.std() / math.sqrt(draws))
    # The squared length of a mean of independent errors is, on average, that of one over their number.
    mean_square = errors.flatten(1).square().sum(1).mean() / draws
    test.assertLess(errors.mean(0).square().sum(), 3 * mean_square)


class Attention(nn.Module):
    """Q, K and V as BERT has them, without the softmax."""

    def __init__(self):
        super().__init__()
        self.query, self.key, self.value = (nn.Linear(INPUTS, OUTPUTS) for _ in range(3))

    def forward(self, h):
        return (self.query(h) * self.key(h).sin() + self.value(h).square()).sum()
