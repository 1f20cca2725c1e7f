"""The study's methods, and its tables."""

import pathlib
import sys
import tempfile
import unittest

import torch
from transformers import BertConfig

from wtacrs.torch import SavedBytes

sys.path.append(str(pathlib.Path(__file__).parents[2] / "study"))

from memory import LASTING, fitting, sum_of_parts, working  # noqa: E402
from memory_report import Whole  # noqa: E402
from methods import METHODS  # noqa: E402
from models import Classifying, masks_of  # noqa: E402
from pages import put, table  # noqa: E402
from runs import result_of  # noqa: E402

SHAPE = {
    "hidden_size": 64,
    "intermediate_size": 128,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "vocab_size": 50,
}


def step(name):
    """Names of what trains, and the bytes that are held, for a batch of eight."""
    torch.manual_seed(0)
    model = Classifying(BertConfig(**SHAPE)).train()
    sampling = METHODS[name].apply(model, "base")
    batch = model.batch(8)
    # The first pass shows which inputs are kept anyway.
    for _ in range(2):
        with (
            SavedBytes(model) as saved,
            sampling.batch(range(8), *masks_of(batch)) if sampling else torch.enable_grad(),
        ):
            loss = model(**batch)
        loss.backward()
    trained = {name for name, p in model.named_parameters() if p.requires_grad}
    assert all(p.grad is not None for p in model.parameters() if p.requires_grad)
    return trained, saved.total


class Methods(unittest.TestCase):
    def test_what_trains(self):
        full, _ = step("full")
        self.assertEqual(step("ours-0.3")[0], full)
        self.assertEqual(step("published-0.1")[0], full)
        adapters = {name for name in full if name.startswith("head.")} | {
            f"base.encoder.layer.{layer}.attention.self.{product}.lora_{half}.default.weight"
            for layer in range(2) for product in ("query", "value") for half in "AB"
        }  # fmt: skip
        for name in ("lora", "lora+published-0.3", "lora+ours-all"):
            self.assertEqual(step(name)[0], adapters)
        ladder = step("lst")[0]
        self.assertTrue({"head.weight", "head.bias"} < ladder)
        self.assertFalse([name for name in ladder if "backbone" in name])

    def test_what_is_held(self):
        full = step("full")[1]
        shares = {name: step(name)[1] / full for name in METHODS if name != "full"}
        self.assertLess(shares["ours-0.3"], shares["ours-all"])
        self.assertLess(shares["ours-all"], 0.2)
        self.assertLess(shares["published-0.1"], shares["published-0.3"])
        self.assertLess(shares["lora+ours-0.3"], shares["ours-0.3"])
        self.assertLess(shares["checkpointing"], 0.5)


class Tables(unittest.TestCase):
    def measured(self, size):
        """30 bytes that last, 3 for each sequence, and 100 of gradients, 20 of them when all else is held; beside what
        operators have."""
        parts = dict.fromkeys(LASTING, 10) | {"gradients": 100, "held": 3 * size, "by_operator": {"other": 3 * size}}
        measured = {
            "model": "t5-base",
            "method": "full",
            "batch": size,
            **parts,
            "moments": [(20, 3 * size), (100, size)],
        }
        return measured | {"peak": sum_of_parts(measured, measured, size) + 5 + size}

    def test_the_sum_of_parts_at_its_highest_moment(self):
        few = self.measured(8)
        for size in (8, 39, 40, 41, 64):
            expected = 30 + max(20 + 3 * size, 100 + size) + working("full", few, size)
            self.assertEqual(sum_of_parts(few, few, size), expected)
        self.assertEqual(working("full", few, 2), 4 * (3 * 2 * 128 * 3072 + 32128 * 768))
        self.assertEqual(working("lst", few, 2), 4 * 3 * 2 * 128 * 3072)
        # One of 24 blocks.
        self.assertEqual(working("checkpointing", few, 2) - working("full", few, 2), 3 * 2 / 24)

    def test_a_batch_that_fits(self):
        few = self.measured(8)
        whole = sum_of_parts(few, few, 64)
        for limit, expected in ((2 * whole, 64), (whole, 64), (whole - 1, 32), (0, 8)):
            self.assertEqual(fitting(few, few, 64, limit), expected)

    def test_the_line_to_the_whole_batch(self):
        for sizes in ((8,), (8, 16), (8, 64), (8, 16, 32)):
            whole = Whole({size: self.measured(size) for size in sizes}, self.measured(8))
            total = 242 + working("full", self.measured(8), 64)
            self.assertEqual((whole.batch, whole.held, whole.sum), (sizes[-1], 192, total))
            self.assertEqual(whole.peak, total + 5 + (64 if len(sizes) > 1 else 8))
            self.assertEqual(whole.by_operator, {"other": 192})

    def test_tables_in_pages(self):
        with tempfile.TemporaryDirectory() as folder:
            page = pathlib.Path(folder) / "page.md"
            page.write_text("a\n<!-- one -->\n<!-- end of one -->\nb\n")
            for _ in range(2):
                put(page, "one", table([["x", "y"], ["1", r"\2"]]))
            text = "a\n<!-- one -->\n| x | y |\n| --- | --- |\n| 1 | \\2 |\n<!-- end of one -->\nb\n"
            self.assertEqual(page.read_text(), text)
            with self.assertRaisesRegex(SystemExit, "0 places for 'two'"):
                put(page, "two", "")

    def test_a_study_goes_on(self):
        with tempfile.TemporaryDirectory() as folder:
            script, file = pathlib.Path(folder) / "script.py", pathlib.Path(folder) / "result.json"
            script.write_text(
                "import sys, json; json.dump(sys.argv[1:], sys.stdout) if sys.argv[1] == '1' else sys.exit(3)"
            )
            with self.assertRaisesRegex(SystemExit, "exit 3"):
                result_of(file, script, 0)
            self.assertFalse(file.exists())
            self.assertEqual(result_of(file, script, 1), ["1"])
            self.assertEqual(result_of(file, script, 0), ["1"])


if __name__ == "__main__":
    unittest.main()
