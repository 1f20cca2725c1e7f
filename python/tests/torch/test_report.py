"""What the report says of a model, and that the bytes it expects are those that torch holds."""

import json
import unittest
import warnings

import torch
from torch import nn
from transformers import BertConfig, BertForSequenceClassification, LlamaConfig, LlamaForCausalLM

from wtacrs.torch import Error, SavedBytes, convert

from .helpers import uneven

BATCH, LENGTH, WORDS = 4, 64, 60


def bert():
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=WORDS, hidden_size=128, intermediate_size=256, num_hidden_layers=2, num_attention_heads=2
    )
    return BertForSequenceClassification(config).train()


def llama(**options):
    torch.manual_seed(0)
    sizes = {"hidden_size": 128, "intermediate_size": 256, "num_hidden_layers": 2, "num_attention_heads": 2}
    return LlamaForCausalLM(LlamaConfig(vocab_size=WORDS, use_cache=False, **sizes)).train()


def run(model):
    return model(input_ids=torch.randint(1, WORDS, (BATCH, LENGTH)))


class Bytes(unittest.TestCase):
    def test_they_are_what_torch_holds(self):
        every = [{}, {"bits": "native"}, {"budget": 1.0}]
        # BERT's pooler reads a view of the first tokens, which holds all of them.
        of_view = 4 * 128 * BATCH * (LENGTH - 1)
        for make, view, more in (
            (bert, of_view, {"layers": {"*.query": {"budget": 0.1}}}),
            (llama, 0, {"layers": {"*.down_proj": {"bits": 2}}}),
        ):
            for options in (*every, more):
                model = make()
                with SavedBytes(model) as before:
                    run(model)
                sampling = convert(model, seed=1, **options)
                run(model).logits.sum().backward()
                report = sampling.report(BATCH, LENGTH)
                with SavedBytes(model) as after:
                    run(model)
                self.assertEqual(report.held_before, before.linear - view)
                # Blocks have more than their rows, and begin at multiples of 64 bytes.
                self.assertLess(abs(report.held_after / (after.linear - view) - 1), 0.03)

    def test_before_the_first_pass_no_input_is_known_to_be_shared(self):
        model = nn.Sequential(nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 256))
        report = convert(model, 0.5, bits="native").report(2, 50)
        self.assertEqual(report.held_before, 100 * 4 * (128 + 64))
        self.assertEqual(report.held_after, 50 * (4 * (128 + 64) + 2 * 12))
        frozen = nn.Sequential(nn.Linear(128, 64), nn.GELU(), nn.Linear(64, 256))
        frozen[0].requires_grad_(False)
        self.assertEqual(convert(frozen, 0.5).report(2, 50).held_before, 100 * 4 * 64)


class Shares(unittest.TestCase):
    def test_of_weights_and_operations(self):
        model = nn.ModuleDict(
            {"linear": nn.Linear(64, 64), "convolution": nn.Conv1d(64, 64, 1), "b": nn.Linear(64, 32)}
        )
        report = convert(model, 0.3, skip=["b"]).report()
        self.assertAlmostEqual(report.weights_served, 64 * 64 / (64 * 64 * 2 + 64 * 32))
        # A convolution's operations are not known from its shape.
        self.assertAlmostEqual(report.flops_served, 64 / 96)


class Forms(unittest.TestCase):
    def test_the_table(self):
        model = bert()
        sampling = convert(model, 0.3, skip=["classifier"], layers={"bert.encoder.layer.1": {"bits": 2}}, seed=1)
        run(model).logits.sum().backward()
        lines = str(sampling.report(BATCH, LENGTH)).splitlines()
        self.assertEqual(lines[0], "12 layers are sampled")
        cells = [line.split() for line in lines]
        self.assertIn("4 nn.Linear 128 to 128 budget 0.3 4 bits".split(), [line[:9] for line in cells])
        self.assertIn("1 nn.Linear 256 to 128 budget 0.3 2 bits".split(), [line[:9] for line in cells])
        self.assertIn("      skip names it", lines)
        self.assertIn("      a pass over 4 rows, and passes below 64 are exact", lines)
        self.assertRegex(lines[-2], r"hold, for 4 x 64 tokens: [\d.]+ MB before, [\d.]+ kB after \(0\.\d+\)")
        self.assertRegex(lines[-1], r"sampled: 0\.9\d+ of the matrix weights that train, 0\.9\d+ of the linear layers'")
        self.assertEqual(str(sampling), str(sampling.report()))
        self.assertIn("for a token", str(sampling))

    def test_names_are_short(self):
        model = nn.ModuleDict(
            {"blocks": nn.ModuleList(nn.Linear(64, 64) for _ in range(12)), "one7": nn.Linear(64, 80)}
        )
        lines = str(convert(model, 0.3)).splitlines()
        self.assertEqual([line.split()[-1] for line in lines[1:3]], ["blocks.*", "one7"])

    def test_frozen_layers(self):
        model = nn.Sequential(nn.Linear(64, 64), nn.Linear(64, 64))
        model[1].requires_grad_(False)
        lines = str(convert(model, 0.3)).splitlines()
        self.assertEqual(lines[0], "1 layer is sampled; 1 converted layer is frozen, and nothing is saved for these")
        self.assertIn("frozen", lines[2])

    def test_operators(self):
        model = bert()
        sampling = convert(model, 1.0, bits="native", activations="packed")
        text = str(sampling)
        self.assertTrue(text.startswith("no layer is sampled"))
        self.assertIn("8 bits an element", text)

    def test_as_data(self):
        model = bert()
        report = convert(model, 0.3, skip=["classifier"]).report(BATCH, LENGTH)
        data = json.loads(json.dumps(report.to_dict()))
        self.assertEqual((data["batch"], data["length"], data["held_after"]), (BATCH, LENGTH, report.held_after))
        self.assertEqual(data["exact"][0]["names"], ["classifier"])
        self.assertEqual(sum(len(group["names"]) for group in data["sampled"]), 13)

    def test_refusals(self):
        sampling = convert(nn.Sequential(nn.Linear(64, 64)), 0.3)
        with self.assertRaisesRegex(Error, "batch=0; a report is for at least one"):
            sampling.report(0)
        model = nn.Sequential(nn.Linear(64, 64))
        sampling = convert(model, 0.3)
        model(uneven(100, 64)).sum().backward()
        del model
        with self.assertRaisesRegex(Error, "nothing refers to the model"):
            sampling.report()


class Adapter(nn.Module):
    def __init__(self, base):
        super().__init__()
        self.base = base.requires_grad_(False)
        self.lora_A = nn.Linear(base.in_features, 8, bias=False)
        self.lora_B = nn.Linear(8, base.out_features, bias=False)

    def forward(self, x):
        return self.base(x) + self.lora_B(self.lora_A(x))


class Adapters(unittest.TestCase):
    def test_second_halves_are_not_missed(self):
        """They are exact by rule, and more than half of what trains."""
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            sampling = convert(nn.Sequential(Adapter(nn.Linear(256, 1024))), 0.3)
        self.assertNotIn("0.lora_B", sampling.sampled)


if __name__ == "__main__":
    unittest.main()
