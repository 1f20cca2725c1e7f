"""Converted models in files and in other processes: `pickle`, `torch.save`, `copy.deepcopy`, and processes that are
spawned or forked."""

import copy
import io
import itertools
import pathlib
import pickle
import tempfile
import unittest
import warnings

import torch
import torch.multiprocessing
from torch import nn
from transformers import (
    BertConfig,
    BertModel,
    GPT2Config,
    GPT2Model,
    LlamaConfig,
    LlamaModel,
    MixtralConfig,
    MixtralModel,
    T5Config,
    T5Model,
)

from wtacrs.torch import Error, convert

from .helpers import INPUTS, ROOM, TOKENS, Attention, block_of, gradients, linear, run_python, uneven, wrap

WORDS, LENGTH = 50, 40
IDS = torch.randint(1, WORDS, (3, LENGTH), generator=torch.Generator().manual_seed(1))


def bert():
    widths = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return BertModel(BertConfig(vocab_size=WORDS, **widths), add_pooling_layer=False)


def llama():
    widths = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
    return LlamaModel(LlamaConfig(vocab_size=WORDS, use_cache=False, **widths))


def t5():
    widths = {"d_model": 64, "d_kv": 16, "d_ff": 96, "num_heads": 4, "num_layers": 2}
    return T5Model(T5Config(vocab_size=WORDS, **widths, feed_forward_proj="gated-gelu"))


def gpt2():
    return GPT2Model(GPT2Config(vocab_size=WORDS, n_embd=64, n_layer=2, n_head=4, use_cache=False))


def mixtral():
    widths = {"hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 1, "num_attention_heads": 4}
    experts = {"num_local_experts": 2, "num_experts_per_tok": 2, "num_key_value_heads": 2}
    return MixtralModel(MixtralConfig(vocab_size=WORDS, use_cache=False, **widths, **experts))


MODELS = (bert, llama, t5, gpt2, mixtral)
OPTIONS = ({}, {"activations": "packed"}, {"source": "input"}, {"budget": 1.0, "activations": "exact"})


def made(make, **options):
    torch.manual_seed(0)
    model = make().train()
    return model, convert(model, **{"budget": 0.3, "seed": 3, **options})


def step(model, sampling=None):
    """Gradients of one step, the dropout masks of which are the same in every process."""
    torch.manual_seed(5)
    options = {"decoder_input_ids": IDS} if isinstance(model, T5Model) else {}
    return gradients(model, lambda: model(input_ids=IDS, **options).last_hidden_state.square().sum())


def equal(test, found, expected):
    test.assertEqual(len(found), len(expected))
    for one, other in zip(found, expected):
        test.assertTrue(one is other is None or torch.equal(one, other))


def by_pickle(model):
    return pickle.loads(pickle.dumps(model))


def by_torch(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)


class Pickling(unittest.TestCase):
    def test_the_next_steps_are_equal(self):
        for make in MODELS:
            for steps, options in itertools.product((0, 2), OPTIONS):
                with warnings.catch_warnings():
                    # Of models whose layers are few.
                    warnings.simplefilter("ignore")
                    with self.subTest(make.__name__, steps=steps, **options):
                        model, sampling = made(make, **options)
                        for _ in range(steps):
                            step(model)
                        other = (by_torch if steps else by_pickle)(model)
                        for _ in range(2):
                            equal(self, step(other), step(model))
                        again = sampling_of(other)
                        self.assertIsNot(again, sampling)
                        self.assertEqual((again.seed, again.offset), (sampling.seed, sampling.offset))
                        self.assertEqual(list(again.guesses), list(sampling.guesses))
                        self.assertEqual(again.left_exact, sampling.left_exact)
                        self.assertEqual(str(again), str(sampling))

    def test_classes_and_parameters(self):
        model, _ = made(llama, activations="packed")
        other = by_pickle(model)
        for (name, one), (_, two) in zip(model.named_modules(), other.named_modules()):
            self.assertIs(type(one), type(two), name)
        equal(self, list(other.state_dict().values()), list(model.state_dict().values()))
        self.assertIs(sampling_of(other).model, other)

    def test_a_copy_is_reverted_by_itself(self):
        for make in MODELS:
            model, sampling = made(make, activations="packed")
            other = by_pickle(model)
            sampling_of(other).revert()
            torch.manual_seed(0)
            kinds = {name: type(module) for name, module in make().named_modules()}
            self.assertEqual({name: type(module) for name, module in other.named_modules()}, kinds)
            self.assertEqual(other.config._attn_implementation, "sdpa")
            # The model itself goes on.
            before = sampling.offset
            step(model)
            self.assertGreater(sampling.offset, before)
            sampling.revert()
            self.assertEqual({name: type(module) for name, module in model.named_modules()}, kinds)

    def test_a_cache_and_a_room(self):
        model = wrap(linear())
        sampling = convert(model, 0.3, source="cached", bits="native", **ROOM)
        h = uneven(TOKENS, INPUTS)

        def step(model, sampling):
            with sampling.batch(range(TOKENS)):
                return gradients(model, lambda: model(h).sin().sum())

        step(model, sampling)
        other = by_pickle(model)
        equal(self, step(other, other[0].sampled.sampling), step(model, sampling))

    def test_skips_that_cannot_be_imported(self):
        model, _ = made(bert, skip=lambda name, module: name.endswith("key"))
        other = by_pickle(model)
        self.assertIs(type(other.encoder.layer[0].attention.self.key), nn.Linear)
        equal(self, step(other), step(model))

    def test_what_a_pass_has_shared_is_left_behind(self):
        model = Attention()
        sampling = convert(model, 0.3, bits="native")
        h = uneven(TOKENS, INPUTS)
        loss = model(h)
        other = by_pickle(model)
        self.assertIsNotNone(block_of(sampling, h))
        self.assertEqual(len(sampling_of(other)._inputs), 0)
        loss.backward()

    def test_errors(self):
        error = pickle.loads(pickle.dumps(Error("words", 3)))
        self.assertEqual((str(error), error.status), ("words", 3))

    def test_deep_copies_share_the_sampling(self):
        for make in MODELS:
            model, sampling = made(make, activations="packed")
            step(model)
            other = copy.deepcopy(model)
            self.assertIs(sampling_of(other), sampling)
            before = sampling.offset
            step(other)
            self.assertGreater(sampling.offset, before)


def sampling_of(model):
    for module in model.modules():
        sampled = getattr(module, "sampled", None)
        if sampled is not None:
            return sampled.sampling


def spawned(rank, model, answers):
    torch.set_num_threads(1)
    answers.put([gradient.numpy() for gradient in step(model) if gradient is not None])


class Processes(unittest.TestCase):
    def expected(self, model):
        return [gradient for gradient in step(model) if gradient is not None]

    def test_spawned_with_a_model(self):
        for make in (llama,):
            model, _ = made(make, activations="packed")
            step(model)
            model.zero_grad()
            context = torch.multiprocessing.get_context("spawn")
            answers = context.SimpleQueue()
            processes = torch.multiprocessing.spawn(spawned, (model, answers), nprocs=1, join=False)
            found = [torch.from_numpy(array) for array in answers.get()]
            processes.join()
            equal(self, found, self.expected(model))

    def test_a_file_in_another_process(self):
        with tempfile.TemporaryDirectory() as folder:
            for make in (bert, gpt2):
                model, _ = made(make, activations="packed")
                step(model)
                file, answer = (pathlib.Path(folder) / name for name in ("model.pt", "answer.pt"))
                torch.save(model, file)
                # transformers and wtacrs are imported by what is loaded alone.
                program = (
                    "import sys, torch\n"
                    "torch.set_num_threads(1)\n"
                    f"model = torch.load({str(file)!r}, weights_only=False)\n"
                    "from tests.torch.test_cases_pickling import step\n"
                    f"torch.save(step(model), {str(answer)!r})\n"
                )
                self.assertIsNone(run_python("-c", program))
                equal(self, torch.load(answer), step(model))


FORKED = """
import multiprocessing, os, pickle, sys, warnings
import torch
from tests.torch.test_cases_pickling import made, bert, step, sampling_of
from torch.utils.data import DataLoader
from wtacrs.torch import convert


def answer(model):
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        wide(h).square().sum().backward()
        found = [g.numpy() for g in step(model) if g is not None]
    state = sampling_of(model).state_dict()
    return found, state["offset"], {n: d.numpy() for n, d in state["guesses"].items()}, [str(w.message) for w in caught]


def child(model, writer, threads):
    if threads is not None:
        torch.set_num_threads(threads)
    writer.send(answer(model))


def run(threads):
    reader, writer = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=child, args=(model, writer, threads))
    process.start()
    # A child that hangs is what this is there to find.
    if not reader.poll(600):
        process.kill()
        sys.exit("the forked process hangs")
    found = reader.recv()
    process.join()
    return found


def equal(one, other):
    same = lambda a, b: a.tobytes() == b.tobytes()
    assert one[1] == other[1] and list(one[2]) == list(other[2])
    assert all(map(same, one[0], other[0])) and all(same(one[2][name], other[2][name]) for name in one[2])


model, sampling = made(bert, activations="packed")
# Large enough for threads of the library and of torch.
wide, h = torch.nn.Linear(512, 512), torch.ones(4096, 512)
convert(wide, 0.3)
wide(h).square().sum().backward()
step(model)
model.zero_grad()

# Workers that load data are left alone.
loader = DataLoader(torch.arange(8), batch_size=2, num_workers=2, multiprocessing_context="fork")
with warnings.catch_warnings():
    warnings.simplefilter("error")
    assert torch.cat(list(loader)).tolist() == list(range(8))

first, second = run(1), run(None)
assert not any("fork" in message for message in first[3]), first[3]
assert sum("fork" in message for message in second[3]) == int(torch.get_num_threads() > 1), second[3]
equal(first, second)
# The process itself goes on with its threads, and so do forks of it.
torch.set_num_threads(1)
equal(first, answer(model))
equal(run(1), answer(model))
"""


class Forks(unittest.TestCase):
    """The library starts threads of its own in a forked process. torch's own do not survive a fork."""

    def test_a_forked_process_trains(self):
        for torchs in ("1", "2"):
            with self.subTest(torchs=torchs):
                self.assertIsNone(run_python("-c", FORKED, RAYON_NUM_THREADS="2", OMP_NUM_THREADS=torchs))


if __name__ == "__main__":
    unittest.main()
