"""The study of accuracy: rates, parts of data, and the front."""

import json
import pathlib
import sys
import tempfile
import unittest

import torch

sys.path.append(str(pathlib.Path(__file__).parents[2] / "study"))

from accuracy import best_rate, candidate  # noqa: E402
from accuracy_report import above, front  # noqa: E402
from finetune_task import reviews, sentences  # noqa: E402


class Rates(unittest.TestCase):
    def setUp(self):
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.out = pathlib.Path(folder.name)
        (self.out / "search").mkdir()

    def searched(self, method, rate, loss):
        file = self.out / "search" / f"sentences-{method}-rate{rate:g}.json"
        file.write_text(json.dumps({"rate": rate, "loss": loss}))

    def test_the_third_is_beyond_the_better_of_two(self):
        for method, losses, expected in (
            ("full", (0.5, 0.6), [1e-4, 2e-4, 5e-5]),
            ("ours-0.3", (0.6, 0.5), [1e-4, 2e-4, 4e-4]),
            ("lora", (0.6, 0.5), [1e-3, 3e-3, 1e-2]),
            ("lst", (0.5, 0.6), [1e-3, 3e-3, 3e-4]),
        ):
            found = []
            for place, loss in enumerate((*losses, 0.55)):
                found.append(candidate(self.out, "sentences", method, place))
                self.searched(method, found[-1], loss)
            self.assertEqual(found, expected)
            self.assertEqual(best_rate(self.out, "sentences", method), expected[losses.index(min(losses))])

    def test_names_that_begin_alike_are_apart(self):
        for method in ("ours-0.3", "ours-0.3-linear"):
            for rate in (5e-5, 1e-4, 2e-4):
                self.searched(method, rate, rate if method == "ours-0.3" else 1 - rate)
        self.assertEqual(best_rate(self.out, "sentences", "ours-0.3"), 5e-5)
        self.assertEqual(best_rate(self.out, "sentences", "ours-0.3-linear"), 2e-4)

    def test_training_needs_the_search(self):
        self.searched("full", 1e-4, 0.5)
        with self.assertRaisesRegex(SystemExit, "search first: of sentences and full there are 1 runs"):
            best_rate(self.out, "sentences", "full")


class Data(unittest.TestCase):
    def test_reviews_are_not_padded(self):
        train, test = reviews(8, 6, 128)
        self.assertEqual((len(train), len(test)), (8, 6))
        self.assertEqual([train.labels.sum(), test.labels.sum()], [4, 3])
        self.assertTrue(train.batch(torch.arange(8))[1].all())
        self.assertFalse(set(train.ids.tolist()) & set(test.ids.tolist()))
        with self.assertRaisesRegex(ValueError, "too few reviews of 512 tokens"):
            reviews(100, 100, 512)

    def test_a_part(self):
        data, _ = sentences(12, 2, 16)
        part = data.part([1, 10])
        self.assertEqual(len(part), 2)
        self.assertEqual(part.ids.tolist(), data.ids[[1, 10]].tolist())
        self.assertEqual(part.tokens, [data.tokens[1], data.tokens[10]])


class Report(unittest.TestCase):
    def test_the_front(self):
        points = [(3, 0.7), (1, 0.6), (2, 0.6), (4, 0.7), (3, 0.8), (5, 0.9)]
        self.assertEqual(front(points), [(1, 0.6), (3, 0.8), (5, 0.9)])

    def test_losses_are_compared_seed_by_seed(self):
        full = [{"seed": seed, "loss_by_epoch": [1.0, 0.25 * seed]} for seed in (0, 1)]
        runs = [{"seed": seed, "loss_by_epoch": [1.0, 0.5]} for seed in (1, 2)]
        self.assertEqual(above(runs, full), [0.25])


if __name__ == "__main__":
    unittest.main()
