"""The study's ladder side network."""

import pathlib
import sys
import unittest

import torch
from transformers import BertConfig, BertModel, LlamaConfig, LlamaModel, T5Config, T5Model

sys.path.append(str(pathlib.Path(__file__).parents[2] / "study"))

from ladder import Ladder, channels, largest  # noqa: E402

SHAPE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 3, "num_attention_heads": 4, "vocab_size": 50}
BACKBONES = {
    "BERT": lambda: BertModel(BertConfig(**SHAPE), add_pooling_layer=False),
    "T5": lambda: T5Model(T5Config(d_model=32, d_ff=64, d_kv=8, num_layers=3, num_heads=4, vocab_size=50)),
    "Llama": lambda: LlamaModel(LlamaConfig(**SHAPE)),
}


def inputs(backbone):
    ids = torch.randint(1, 50, (2, 12), generator=torch.Generator().manual_seed(1))
    decoder = {"decoder_input_ids": ids[:, :5]} if isinstance(backbone, T5Model) else {}
    return {"input_ids": ids, "attention_mask": torch.ones_like(ids), "use_cache": False, **decoder}


class Ladders(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)

    def test_a_side_as_wide_as_the_backbone_repeats_it(self):
        for name, make in BACKBONES.items():
            with self.subTest(name):
                backbone = make().eval()
                given = inputs(backbone)
                if name == "BERT":
                    given.pop("use_cache")
                expected = backbone(**given).last_hidden_state
                ladder = Ladder(backbone, reduction=1).eval()
                with torch.no_grad():
                    for down in [*ladder.down, ladder.up]:
                        down.weight.copy_(torch.eye(32))
                    ladder.up.bias.zero_()
                    for gate in ladder.gates:
                        # The side alone.
                        gate.fill_(-100)
                found = ladder(**given).last_hidden_state
                torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
                with torch.no_grad():
                    ladder.gates[-1].fill_(100)
                    next(ladder.side.parameters()).add_(1)
                torch.testing.assert_close(ladder(**given).last_hidden_state, expected, rtol=1e-4, atol=1e-5)

    def test_the_side_trains_and_the_backbone_does_not(self):
        for name, make in BACKBONES.items():
            with self.subTest(name):
                backbone = make()
                before = {name: p.clone() for name, p in backbone.named_parameters()}
                ladder = Ladder(backbone, reduction=4).train()
                self.assertFalse(ladder.backbone.training)
                given = inputs(backbone)
                if name == "BERT":
                    given.pop("use_cache")
                output = ladder(**given).last_hidden_state
                self.assertEqual(output.shape[-1], 32)
                output.square().sum().backward()
                trained = [p for p in ladder.parameters() if p.requires_grad]
                self.assertTrue(all(p.grad is not None and p.grad.isfinite().all() for p in trained))
                gates = [gate for gate in ladder.gates if gate.requires_grad]
                # The first block of each stack has none.
                self.assertEqual(len(gates), len(ladder.gates) - (2 if name == "T5" else 1))
                self.assertTrue(all(gate.grad != 0 for gate in gates))
                for parameter, was in zip(backbone.parameters(), before.values()):
                    self.assertTrue(torch.equal(parameter, was) and not parameter.requires_grad)

    def test_the_side_begins_as_the_largest_channels(self):
        backbone = BACKBONES["BERT"]()
        side = Ladder(backbone, reduction=2).side
        theirs, own = (model.encoder.layer[1].intermediate.dense.weight for model in (backbone, side))
        inner = theirs.abs().sum(1).topk(32).indices.sort().values
        wide = [channel for channel in range(32) if any(torch.equal(theirs[inner, channel], c) for c in own.T)]
        self.assertEqual(len(wide), 16)
        torch.testing.assert_close(own, theirs[inner][:, wide], rtol=0, atol=0)

    def test_channels_of_products(self):
        self.assertEqual(largest(torch.tensor([[1.0, 3, 2, 0], [0, 5, 6, 1]]), 0.5).tolist(), [1, 2, 5, 6])
        self.assertIsNone(channels({"inner": r"(?P<of>.*\.\d+)\.mlp\."}, "layers.3.self_attn.q_proj.weight"))


if __name__ == "__main__":
    unittest.main()
