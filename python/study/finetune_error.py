"""How far a batch's sampled gradient is from its exact one, early in the fine-tuning study.

    python finetune_error.py wta-pivotal-predictor-0.3

Trains with the configuration as finetune.py does, but without dropout and at a constant rate, so that gradients of one
batch can be compared. Prints the root of the mean squared relative error, over four draws: of all linear weights
together, and the median over the weight matrices.
"""

import statistics
import sys

import torch
from finetune import Step, build, configurations
from finetune_task import sentences

from wtacrs.torch import SampledLinear


def gradients(step, batch):
    step.model.zero_grad()
    step.loss(*batch).backward()
    return {layer: layer.weight.grad.clone() for layer in step.sampling.layers.values()}


def errors(step, batch, draws=4):
    layers = [m for m in step.model.modules() if type(m) is SampledLinear]
    for layer in layers:
        layer.training = False
    exact = gradients(step, batch)
    for layer in layers:
        layer.training = True
    squared = dict.fromkeys(exact, 0.0)
    learned = step.sampling.state_dict()
    for _ in range(draws):
        for layer, estimate in gradients(step, batch).items():
            squared[layer] += (estimate - exact[layer]).square().sum().item() / draws
        # New draws, but nothing learned from this batch.
        step.sampling.load_state_dict(learned | {"offset": step.sampling.offset})
    lengths = {layer: gradient.square().sum().item() for layer, gradient in exact.items()}
    whole = (sum(squared.values()) / sum(lengths.values())) ** 0.5
    return whole, statistics.median((squared[layer] / lengths[layer]) ** 0.5 for layer in exact)


def main():
    torch.set_num_threads(1)
    data, _ = sentences(1152, 1000, 48)
    step = Step(*build(configurations()[sys.argv[1]], 0))
    for module in step.model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    parameters = [p for p in step.model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(parameters, lr=1e-4, weight_decay=0.01)
    for count, chosen in enumerate(data.epoch(32, torch.Generator().manual_seed(0))):
        batch = data.batch(chosen)
        if count in (3, 20, 35):
            whole, median = errors(step, batch)
            print(f"step {count}: relative error {whole:.2f}, median over matrices {median:.2f}", flush=True)
        optimizer.zero_grad()
        step(batch)
        torch.nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()


if __name__ == "__main__":
    main()
