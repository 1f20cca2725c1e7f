"""What ranks exchange after a step, so that their guesses stay equal.

Predictors: one all-reduce adds the sums of each rank's rows. The sums are exact, so every rank has the same predictor
to the bit. Caches: one all-gather brings the norms of each rank's samples to all, since the next epoch may give a
sample to another rank.

Ranks need not use the same layers in a step: one that has not used a layer, such as an expert that no token reached,
adds nothing. They agree on a list of guesses, in the first exchange and whenever one of them has used a layer that is
not in it. Each message says whether its rank has, so that all agree anew at the same time. The answer is read in the
next exchange, when it has arrived, so that nobody waits for a GPU; until then that rank's sums wait in `pending`.
"""

from __future__ import annotations

import torch
import torch.distributed as distributed


class Agreement:
    """The names of the guesses that ranks exchange, with the number of features that each reads."""

    def __init__(self):
        self.features: dict[str, int] = {}
        # Whether a rank wanted to agree anew when the last message was sent. The first exchange begins with it.
        self._wanted = Announcement.made(torch.ones(1, device="cpu"))

    def reach(self, sampling):
        """The guesses that this exchange is of, in an order that all ranks have. Ranks that have not used a layer yet
        begin with a guess that has learned nothing."""
        if self._wanted.read():
            own = {name: guess.in_features for name, guess in sampling.guesses.items()}
            everywhere = [None] * distributed.get_world_size(sampling.group)
            distributed.all_gather_object(everywhere, own, group=sampling.group)
            self.features = dict(sorted((name, count) for names in everywhere for name, count in names.items()))
        return [sampling.guess(name, count) for name, count in self.features.items()]

    def lacks(self, sampling) -> bool:
        return not self.features.keys() >= sampling.guesses.keys()

    def note(self, wanted: torch.Tensor):
        """What the ranks' messages have said, as one number that is above 0 if any of them wants to agree anew."""
        self._wanted = Announcement.made(wanted)


class Announcement:
    """A number on its way from a GPU to the host, or there already."""

    @classmethod
    def made(cls, number: torch.Tensor) -> Announcement:
        made = cls()
        made.number, made.arrival = number, None
        if number.device.type == "cuda":
            made.number = torch.empty(number.shape, dtype=number.dtype, device="cpu", pin_memory=True)
            made.number.copy_(number, non_blocking=True)
            made.arrival = torch.cuda.Event()
            made.arrival.record()
        return made

    def read(self) -> bool:
        if self.arrival is not None:
            self.arrival.synchronize()
        return bool(self.number > 0)


def exchange(sampling):
    planning = sampling.planning
    # What budgets are made from, where that is due; all ranks count alike.
    seen = None if planning is None else planning.due_statistics()
    if sampling.source == "input" or sampling.packs_all:
        if seen is not None:
            seen = seen.to(message_device(sampling.group))
            distributed.all_reduce(seen, group=sampling.group)
    else:
        seen = exchange_guesses(sampling, seen)
    if seen is not None:
        planning.apply(seen)


def exchange_guesses(sampling, seen):
    """Brings the ranks' guesses together, and returns the sum of what they have `seen`, if that is asked for."""
    agreement = sampling.agreement
    guesses = agreement.reach(sampling)
    beside = torch.empty(0, dtype=torch.float64, device="cpu") if seen is None else seen
    if sampling.source == "predicted":
        wanted, beside = add_statistics(guesses, sampling.group, agreement.lacks(sampling), beside)
    else:
        words = sampling.message_words
        sampling.message_words, wanted, beside = gather_norms(
            guesses, sampling.group, words, agreement.lacks(sampling), beside
        )
    agreement.note(wanted)
    return None if seen is None else beside


def message_device(group):
    """Where the group's messages lie: NCCL takes memory of the rank's GPU alone; gloo takes any, by way of the host."""
    by_nccl = "nccl" in distributed.get_backend(group)
    return torch.device("cuda", torch.cuda.current_device()) if by_nccl else torch.device("cpu")


def add_statistics(predictors, group, lacks, beside):
    """One message, for all layers, with further sums `beside`. Its first number counts the ranks that lack something in
    the agreement."""
    device = message_device(group)
    sums = [p.no_statistics() if p.pending is None else p.pending for p in predictors]
    head = torch.full((1,), float(lacks), dtype=torch.float64, device=device)
    total = torch.cat([head, beside.to(device), *(s.to(device) for s in sums)])
    distributed.all_reduce(total, group=group)
    wanted, beside, *steps = total.split([1, len(beside), *map(len, sums)])
    for predictor, step in zip(predictors, steps):
        predictor.apply(step)
        predictor.pending = None
    return wanted, beside


def gather_norms(caches, group, words, lacks, beside):
    """One message from each rank, for all layers, with sums `beside` at its end. Its head contains its length, since
    ranks have batches of different lengths. If any rank's message is longer than `words`, all send again with room for
    the longest. Returns the number of words that was enough, with which the next step begins, how many ranks lack
    something in the agreement, and the total of what was beside."""
    message = pack(caches, lacks, beside).to(message_device(group))
    head = 2 * (2 + 2 * len(caches))
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
    for (_, _, *shapes), other in zip(heads, received):
        for cache, visit in zip(caches, unpack(other[head:], shapes)):
            cache.store(*(part.to(cache.device.torch_device) for part in visit))
    totals = [
        other[length - 2 * len(beside) : length].view(torch.float64) for (length, *_), other in zip(heads, received)
    ]
    wanted = torch.tensor([sum(lacking for _, lacking, *_ in heads)], device="cpu")
    return words, wanted, torch.stack(totals).sum(0)


def pack(caches, lacks, beside):
    """As 32-bit words: the length of the message, and whether its rank lacks something in the agreement; each cache's
    number of samples, and of norms a sample; ids and lengths; norms; what goes beside."""
    visits = [joined(cache.pending, cache.device.torch_device) for cache in caches]
    whole = [part for ids, lengths, _ in visits for part in (ids, lengths)]
    norms = [norms.flatten() for _, _, norms in visits]
    shapes = [size for _, _, norms in visits for size in norms.shape]
    words = 2 * (2 + len(shapes)) + sum(2 * len(part) for part in whole) + sum(map(len, norms))
    device = whole[0].device if whole else "cpu"
    # Even, so that whole numbers can be read in each rank's part of a message.
    gap = torch.zeros(words % 2, dtype=torch.int32, device=device)
    words += len(gap) + 2 * len(beside)
    head = torch.tensor([words, int(lacks), *shapes], device=device)
    return torch.cat([part.view(torch.int32) for part in (head, *whole, *norms, gap, beside.to(device))])


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
