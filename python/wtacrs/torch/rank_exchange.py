"""What ranks exchange after a step, so that their guesses stay equal.

Predictors: one all-reduce adds the sums of each rank's rows. The sums are exact, so every rank has the same predictor
to the bit. Caches: one all-gather brings the norms of each rank's samples to all, since the next epoch may give a
sample to another rank.
"""

from __future__ import annotations

import torch
import torch.distributed as distributed

from .._native import Error


def exchange(sampling):
    if sampling.source == "input" or sampling.packs_all:
        return
    guesses = agreed(sampling)
    if sampling.source == "predicted":
        add_statistics(guesses, sampling.group)
    else:
        sampling.message_words = gather_norms(guesses, sampling.group, sampling.message_words)


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


def message_device(group):
    """Where the group's messages lie: NCCL takes memory of the rank's GPU alone; gloo takes any, by way of the host."""
    by_nccl = "nccl" in distributed.get_backend(group)
    return torch.device("cuda", torch.cuda.current_device()) if by_nccl else torch.device("cpu")


def add_statistics(predictors, group):
    sums = [p.no_statistics() if p.pending is None else p.pending for p in predictors]
    total = torch.cat([s.to(message_device(group)) for s in sums])
    distributed.all_reduce(total, group=group)
    for predictor, step in zip(predictors, total.split([len(s) for s in sums])):
        predictor.apply(step)
        predictor.pending = None


def gather_norms(caches, group, words):
    """One message from each rank, for all layers. Its head contains its length, since ranks have batches of different
    lengths. If any rank's message is longer than `words`, all send again with room for the longest. Returns the number
    of words that was enough, with which the next step begins."""
    message = pack(caches).to(message_device(group))
    head = 2 * (1 + 2 * len(caches))
    words = max(words, head)
    while True:
        padded = torch.zeros(words, dtype=torch.int32, device=message.device)
        padded[: len(message)] = message[:words]
        received = [torch.empty_like(padded) for _ in range(distributed.get_world_size(group))]
        distributed.all_gather(received, padded, group=group)
        heads = torch.stack([other[:head] for other in received]).view(torch.int64).tolist()
        longest = max(length for length, *_ in heads)
        if longest <= words:
            break
        words = longest
    for cache in caches:
        cache.pending = []
    for (_, *shapes), other in zip(heads, received):
        for cache, visit in zip(caches, unpack(other[head:], shapes)):
            cache.store(*(part.to(cache.device.torch_device) for part in visit))
    return words


def pack(caches):
    """As 32-bit words: the length of the message; each cache's number of samples, and of norms a sample; ids and
    lengths; norms."""
    visits = [joined(cache.pending, cache.device.torch_device) for cache in caches]
    whole = [part for ids, lengths, _ in visits for part in (ids, lengths)]
    norms = [norms.flatten() for _, _, norms in visits]
    shapes = [size for _, _, norms in visits for size in norms.shape]
    words = 2 * (1 + len(shapes)) + sum(2 * len(part) for part in whole) + sum(map(len, norms))
    # Even, so that whole numbers can be read in each rank's part of a message.
    head = torch.tensor([words + words % 2, *shapes], device=whole[0].device)
    return torch.cat([part.view(torch.int32) for part in (head, *whole, *norms)])


def joined(visits, device):
    """Visits as one, with rows as long as the longest."""
    none = torch.empty(0, dtype=torch.int64, device=device)
    ids, lengths, norms = zip((none, none, torch.empty(0, 0, dtype=torch.float32, device=device)), *visits)
    longest = max(rows.shape[1] for rows in norms)
    rows = [torch.nn.functional.pad(rows, (0, longest - rows.shape[1])) for rows in norms]
    return torch.cat(ids), torch.cat(lengths), torch.cat(rows)


def unpack(words, shapes):
    shapes = list(zip(shapes[::2], shapes[1::2]))
    counts = [count for count, _ in shapes for _ in range(2)]
    whole = words[: 2 * sum(counts)].view(torch.int64).split(counts)
    norms = words[2 * sum(counts) :].view(torch.float32)
    for (count, tokens), ids, lengths in zip(shapes, whole[::2], whole[1::2]):
        yield ids, lengths, norms[: count * tokens].view(count, tokens)
        norms = norms[count * tokens :]
