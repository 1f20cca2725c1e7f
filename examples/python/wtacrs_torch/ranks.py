"""What ranks tell each other after a step, so that their guesses stay equal.

Predictors: the sums of each rank's rows, added in one all-reduce; they are exact, so every rank has the same predictor
to the bit. Caches: the norms of each rank's samples, gathered by all, since the next epoch may give a sample to another
rank.
"""

import torch
import torch.distributed as distributed
from wtacrs_ctypes import Error


def exchange(sampling):
    if sampling.source == "input":
        return
    guesses = agreed(sampling)
    if sampling.source == "predicted":
        add_statistics(guesses, sampling.group)
    else:
        gather_norms(guesses, sampling.group)


def agreed(sampling):
    """The guesses in an order that all ranks have; asked once, in the first step."""
    names = sorted(sampling.guesses)
    if not hasattr(sampling, "agreed_names"):
        everywhere = [None] * distributed.get_world_size(sampling.group)
        distributed.all_gather_object(everywhere, names, group=sampling.group)
        if any(other != names for other in everywhere):
            raise Error("ranks have used different layers before the first exchange")
        sampling.agreed_names = names
    elif sampling.agreed_names != names:
        raise Error(f"layers first used after the first exchange: {sorted(set(names) - set(sampling.agreed_names))}")
    return [sampling.guesses[name] for name in names]


def add_statistics(predictors, group):
    sums = [p.no_statistics() if p.pending is None else p.pending for p in predictors]
    total = torch.cat(sums)
    distributed.all_reduce(total, group=group)
    for predictor, step in zip(predictors, total.split([len(s) for s in sums])):
        # A copy is aligned as the library asks for, a part of the total is not.
        predictor.apply(step.clone())
        predictor.pending = None


def gather_norms(caches, group):
    """One message for all layers: the sizes first, since ranks have batches of different lengths, then the norms."""
    mine = [pack(cache.pending) for cache in caches]
    message = torch.cat(mine)
    sizes = gather(torch.tensor([len(part) for part in mine]), group)
    longest = max(int(s.sum()) for s in sizes)
    padded = torch.zeros(longest, dtype=torch.float64)
    padded[: len(message)] = message
    for size, received in zip(sizes, gather(padded, group)):
        for cache, part in zip(caches, received[: int(size.sum())].split(size.tolist())):
            for visit in unpack(part):
                cache.store(*visit)
    for cache in caches:
        cache.pending = []


def gather(tensor, group):
    received = [torch.empty_like(tensor) for _ in range(distributed.get_world_size(group))]
    distributed.all_gather(received, tensor, group=group)
    return received


def pack(visits):
    """Counts, ids, lengths and norms as one row of numbers; whole numbers keep their bits."""
    parts = [torch.empty(0, dtype=torch.float64)]
    for ids, lengths, norms in visits:
        counts = torch.tensor([len(ids), len(norms)])
        parts += [torch.cat([counts, ids, lengths]).view(torch.float64), norms.to(torch.float64)]
    return torch.cat(parts)


def unpack(message):
    while len(message):
        samples, tokens = message[:2].clone().view(torch.int64).tolist()
        ids, lengths, norms, message = message[2:].split(
            [samples, samples, tokens, len(message) - 2 - 2 * samples - tokens]
        )
        yield ids.clone().view(torch.int64), lengths.clone().view(torch.int64), norms.to(torch.float32)
