"""A model of `models` that trains by a method of `methods`, with AdamW and random tokens."""

import contextlib

import torch
from methods import METHODS
from models import build, masks_of

from wtacrs.torch import SavedBytes


def pass_passes(sampling, count):
    """As if the predictors had seen so many passes more: they learn more and more seldom."""
    state = sampling.state_dict()
    state["passes"] = {name: passes + count for name, passes in state["passes"].items()}
    sampling.load_state_dict(state)


class Training:
    def __init__(self, model: str, method: str):
        self.model = build(model)
        self.sampling = METHODS[method].apply(self.model, "base")
        self.model.train()
        self.parameters = [p for p in self.model.parameters() if p.requires_grad]
        # Its other forms hold copies of the largest parameter while they run.
        self.optimizer = torch.optim.AdamW(self.parameters, lr=1e-4, fused=True)

    def step(self, size, meter: SavedBytes | None = None, after_forward=None):
        """A forward and a backward pass of so many sequences and AdamW's step. Returns the gradients' bytes."""
        batch = self.model.batch(size)
        samples = contextlib.nullcontext()
        if self.sampling is not None:
            samples = self.sampling.batch(torch.arange(size), *masks_of(batch))
        with samples, meter or contextlib.nullcontext():
            loss = self.model(**batch)
        if after_forward is not None:
            after_forward()
        loss.backward()
        if self.sampling is not None:
            self.sampling.exchange()
        gradients = sum(p.grad.nbytes for p in self.parameters if p.grad is not None)
        self.optimizer.step()
        self.optimizer.zero_grad()
        return gradients

    def state_bytes(self):
        """Of the optimizer's state, without its counts of steps."""
        states = self.optimizer.state.values()
        return sum(value.nbytes for state in states for value in state.values() if value.ndim > 0)
