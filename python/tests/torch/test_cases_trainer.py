"""transformers' Trainer, and accelerate: checkpoints contain a Sampling's state, so that training resumes to the same
bits."""

import contextlib
import importlib.util
import io
import itertools
import pathlib
import shutil
import tempfile
import unittest
import warnings
from unittest import mock

import torch
from torch.utils.data import Dataset
from transformers import BertConfig, BertForSequenceClassification

from wtacrs.torch import Error, convert

from .helpers import run_python

LENGTH, WORDS, STEPS = 32, 50, 6
HAVE_ACCELERATE = importlib.util.find_spec("accelerate") is not None
needed = unittest.skipUnless(HAVE_ACCELERATE, "requires accelerate, as transformers' Trainer does")


class Sentences(Dataset):
    def __init__(self):
        generator = torch.Generator().manual_seed(1)
        self.ids = torch.randint(1, WORDS, (24, LENGTH), generator=generator)

    def __len__(self):
        return len(self.ids)

    def __getitem__(self, number):
        return {"input_ids": self.ids[number], "labels": self.ids[number, 0] % 2}


def model():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=64, intermediate_size=128, num_hidden_layers=2, num_attention_heads=4
    )
    return BertForSequenceClassification(config)


@needed
class Training(unittest.TestCase):
    def setUp(self):
        self.enterContext(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        self.enterContext(contextlib.redirect_stdout(io.StringIO()))
        self.enterContext(contextlib.redirect_stderr(io.StringIO()))
        self.seeds = itertools.count()
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def trainer(self, output="run", callback=True, resume_from=None, budget=0.3, **options):
        from transformers import Trainer, TrainingArguments

        from wtacrs.torch import TrainerCallback

        trained = model()
        torch.manual_seed(next(self.seeds))
        sampling = convert(trained, budget, **options)
        arguments = TrainingArguments(
            str(self.folder / output), max_steps=STEPS, save_steps=3, per_device_train_batch_size=4, report_to=[],
            gradient_accumulation_steps=2, logging_steps=1, disable_tqdm=True, use_cpu=True, learning_rate=1e-3,
        )  # fmt: skip
        callbacks = [TrainerCallback(sampling, resume_from)] if callback else []
        return Trainer(trained, arguments, train_dataset=Sentences(), callbacks=callbacks), sampling

    def result(self, trainer, sampling):
        state = sampling.state_dict()
        return {**trainer.model.state_dict(), **state["guesses"]}, state["seed"], state["offset"]

    def test_a_run_that_resumes_is_the_same_run(self):
        for options in ({}, {"activations": "packed"}, {"budget": 1.0, "bits": 4}):
            with self.subTest(**options):
                output = "-".join(["run", *options])
                trainer, sampling = self.trainer(output, **options)
                trainer.train()
                expected = self.result(trainer, sampling)
                self.assertTrue((self.folder / output / "checkpoint-3" / "wtacrs.pt").is_file())
                # Another model, another seed.
                resumed, sampling = self.trainer(output, **options)
                self.assertNotEqual(sampling.seed, expected[1])
                resumed.train(resume_from_checkpoint=str(self.folder / output / "checkpoint-3"))
                found = self.result(resumed, sampling)
                self.assertEqual(found[1:], expected[1:])
                torch.testing.assert_close(found[0], expected[0], rtol=0, atol=0)
                self.assertEqual(set(found[0]), set(expected[0]))

    def test_without_the_callback_it_is_another_run(self):
        trainer, sampling = self.trainer()
        trainer.train()
        expected = self.result(trainer, sampling)
        resumed, sampling = self.trainer(callback=False)
        resumed.train(resume_from_checkpoint=str(self.folder / "run" / "checkpoint-3"))
        self.assertNotEqual(self.result(resumed, sampling)[2], expected[2])

    def test_the_folder_is_found_or_asked_for(self):
        trainer, sampling = self.trainer()
        trainer.train()
        expected = self.result(trainer, sampling)[0]
        elsewhere = self.folder / "elsewhere"
        shutil.copytree(self.folder / "run" / "checkpoint-3", elsewhere)
        # Another run's checkpoint of the same step is not taken for it.
        other, _ = self.trainer("other", activations="packed")
        other.train()
        lost, _ = self.trainer("other")
        with self.assertRaisesRegex(Error, "step 3, whose wtacrs.pt is in none of .*other.*resume_from="):
            lost.train(resume_from_checkpoint=str(elsewhere))
        resumed, sampling = self.trainer("other", resume_from=elsewhere)
        resumed.train(resume_from_checkpoint=str(elsewhere))
        torch.testing.assert_close(self.result(resumed, sampling)[0], expected, rtol=0, atol=0)

    def test_ranks_exchange_before_a_step_of_the_optimizer(self):
        trainer, sampling = self.trainer()
        with mock.patch.object(type(sampling), "exchange") as exchange:
            trainer.train()
        self.assertEqual(len(exchange.mock_calls), STEPS)

    def test_accelerate(self):
        from accelerate import Accelerator

        accelerator = Accelerator(cpu=True)
        ids = Sentences().ids[:8]

        def prepared():
            trained = model()
            sampling = convert(trained, 0.3)
            optimizer = torch.optim.AdamW(trained.parameters(), lr=1e-3)
            trained, optimizer = accelerator.prepare(trained, optimizer)
            accelerator._custom_objects.clear()
            accelerator.register_for_checkpointing(sampling)

            def step():
                accelerator.backward(trained(input_ids=ids, labels=ids[:, 0] % 2).loss)
                optimizer.step()
                optimizer.zero_grad()

            return trained, sampling, step

        trained, sampling, step = prepared()
        step()
        accelerator.save_state(str(self.folder / "state"))
        step()
        expected = trained.state_dict()
        accelerator.free_memory()
        again, resumed, step = prepared()
        accelerator.load_state(str(self.folder / "state"))
        step()
        self.assertEqual((resumed.seed, resumed.offset), (sampling.seed, sampling.offset))
        torch.testing.assert_close(again.state_dict(), expected, rtol=0, atol=0)


RANKS = """
import pathlib, sys, warnings
import torch
from transformers import Trainer, TrainingArguments
from tests.torch.test_cases_trainer import STEPS, Sentences, model
from wtacrs.torch import TrainerCallback, convert

warnings.simplefilter("ignore")
torch.set_num_threads(1)
output = sys.argv[1]


def run(seed, resume):
    arguments = TrainingArguments(
        output, max_steps=STEPS, save_steps=3, per_device_train_batch_size=4, gradient_accumulation_steps=2,
        report_to=[], disable_tqdm=True, use_cpu=True, learning_rate=1e-3,
    )
    trained = model()
    torch.manual_seed(seed)
    sampling = convert(trained, 0.3, process_group=torch.distributed.group.WORLD)
    trainer = Trainer(trained, arguments, train_dataset=Sentences(), callbacks=[TrainerCallback(sampling)])
    trainer.train(resume_from_checkpoint=resume)
    state = sampling.state_dict()
    tensors = {**trained.state_dict(), **state["guesses"]}
    return state["seed"], state["offset"], {name: t.numpy().tobytes() for name, t in tensors.items()}


first = run(1, None)
assert run(2, str(pathlib.Path(output) / "checkpoint-3")) == first, "resumed otherwise"
everywhere = [None, None]
torch.distributed.all_gather_object(everywhere, first[2])
assert everywhere[0] == everywhere[1], "ranks have learned otherwise"
"""


@needed
class Ranks(unittest.TestCase):
    def test_a_run_of_two_ranks_resumes(self):
        with tempfile.TemporaryDirectory() as folder:
            program = pathlib.Path(folder) / "program.py"
            program.write_text(RANKS)
            launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(program)]
            self.assertIsNone(run_python(*launch, str(pathlib.Path(folder) / "run")))
            checkpoint = pathlib.Path(folder) / "run" / "checkpoint-3"
            self.assertTrue((checkpoint / "wtacrs.pt").is_file() and (checkpoint / "wtacrs_1.pt").is_file())


class Import(unittest.TestCase):
    def test_transformers_is_imported_when_it_is_used(self):
        check = (
            "import sys, wtacrs.torch\n"
            "assert 'transformers' not in sys.modules\n"
            "from wtacrs.torch import TrainerCallback\n"
            "import transformers\n"
            "assert issubclass(TrainerCallback, transformers.TrainerCallback)\n"
        )
        self.assertIsNone(run_python("-c", check))


if __name__ == "__main__":
    unittest.main()
