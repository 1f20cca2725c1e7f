"""What `wtacrs.record` writes, read back: the tensors that `wtacrs compare` and `wtacrs replay` expect."""

import pathlib
import tempfile
import unittest

import safetensors.torch
import torch
from torch import nn
from torch.utils.checkpoint import checkpoint

from wtacrs.record import Steps, record, save_layers

from .helpers import uneven

TOKENS, WIDTH = 12, 8


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second = nn.Linear(WIDTH, 6), nn.Linear(6, 4)
        self.unused = nn.Linear(WIDTH, 4)

    def forward(self, x):
        # In place, as models with little memory do.
        return self.second(self.first(x).relu_())

    def loss(self, x):
        return self(x).square().sum()


class Recorded(unittest.TestCase):
    def setUp(self):
        self.model = Model()
        self.x = uneven(3, 4, WIDTH)
        self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

    def passes(self, x=None, layers=("first", "second")):
        self.model.zero_grad()
        with record(self.model, layers) as passes:
            self.model.loss(self.x if x is None else x).backward()
        return passes

    def assert_gives_the_gradient(self, layer, parameter):
        torch.testing.assert_close(layer.dz.float().T @ layer.h.float(), parameter.grad.float())

    def test_a_layers_file_gives_its_gradient(self):
        previous = self.passes(2 * self.x)
        files = save_layers(self.folder, self.passes(), previous)
        self.assertEqual([file.name for file in files], ["first.safetensors", "second.safetensors"])
        for file, layer, before in zip(files, (self.model.first, self.model.second), previous.values()):
            read = safetensors.torch.load_file(file)
            self.assertEqual(read["h"].shape, (TOKENS, layer.in_features))
            torch.testing.assert_close(read["dz"].T @ read["h"], layer.weight.grad)
            torch.testing.assert_close(read["dz_norm_prev"], before.dz.norm(dim=1))
        torch.testing.assert_close(safetensors.torch.load_file(files[0])["h"], self.x.reshape(-1, WIDTH))

    def test_without_an_earlier_visit_there_are_no_norms(self):
        read = safetensors.torch.load_file(save_layers(self.folder, self.passes(layers="first"))[0])
        self.assertEqual(read.keys(), {"h", "dz"})

    def test_steps(self):
        steps = Steps()
        norms, kept = [], []
        for step in range(3):
            steps.add(self.passes(self.x * (step + 1)))
            norms.append(self.model.first.weight.grad.norm())
            kept.append(self.x.reshape(-1, WIDTH) * (step + 1))
        read = safetensors.torch.load_file(steps.save(self.folder / "new" / "folder")[0])
        torch.testing.assert_close(read["h"], torch.stack(kept))
        self.assertEqual(read["dz_norm"].shape, (3, TOKENS))
        torch.testing.assert_close(read["g_norm"], torch.stack(norms))

    def test_steps_of_the_first_rows(self):
        steps = Steps(tokens=5)
        passes = self.passes()
        steps.add(passes)
        steps.add(self.passes(uneven(7, WIDTH)))
        read = safetensors.torch.load_file(steps.save(self.folder)[0])
        self.assertEqual(read["h"].shape, (2, 5, WIDTH))
        gradient = passes["first"].h[:5].T @ passes["first"].dz[:5]
        torch.testing.assert_close(read["g_norm"][0], gradient.norm())

    def test_dtypes(self):
        for dtype, expected in ((torch.bfloat16, torch.bfloat16), (torch.float64, torch.float32)):
            self.model.to(dtype)
            layer = self.passes(self.x.to(dtype))["first"]
            self.assertEqual((layer.h.dtype, layer.dz.dtype), (expected, expected))
        self.model.float()
        with torch.autocast("cpu", torch.bfloat16):
            layer = self.passes()["first"]
        self.assertEqual((layer.h.dtype, layer.dz.dtype), (torch.bfloat16, torch.bfloat16))

    def test_several_calls_are_one_pass(self):
        with record(self.model, "second") as passes:
            for part in self.x:
                self.model.loss(part).backward()
        self.assertEqual(len(passes["second"].h), TOKENS)
        self.assert_gives_the_gradient(passes["second"], self.model.second.weight)

    def test_checkpointing(self):
        for reentrant in (False, True):
            self.model.zero_grad()
            x = self.x.clone().requires_grad_()
            with record(self.model, "first") as passes:
                checkpoint(self.model.loss, x, use_reentrant=reentrant).backward()
            self.assertEqual(len(passes["first"].h), TOKENS)
            self.assert_gives_the_gradient(passes["first"], self.model.first.weight)

    def test_training_does_not_notice(self):
        self.model.loss(self.x).backward()
        expected = self.model.first.weight.grad.clone()
        self.passes()
        self.assertTrue(torch.equal(self.model.first.weight.grad, expected))
        self.assertFalse(self.model.first._forward_hooks)

    def test_what_is_refused(self):
        def refuse(error, words, act):
            with self.assertRaisesRegex(error, words):
                act()

        refuse(
            ValueError, "no nn.Linear matches 'third': the model has first, second", lambda: self.passes(layers="third")
        )
        refuse(ValueError, "at least one layer", lambda: self.passes(layers=[]))
        refuse(RuntimeError, "nothing to record of unused: it was not called", lambda: self.passes(layers="*"))
        with self.assertRaisesRegex(RuntimeError, "no gradient reached it"), record(self.model, "first"):
            self.model.loss(self.x)
        bad = self.x.clone()
        bad[1, 2, 0] = torch.inf
        refuse(RuntimeError, "H of first is not finite in row 6", lambda: self.passes(bad))
        refuse(
            ValueError,
            "do not have second",
            lambda: save_layers(self.folder, self.passes(), self.passes(layers="first")),
        )
        half = self.passes(self.x[:, :2])
        refuse(ValueError, "first had 6 tokens .* has 12 now", lambda: save_layers(self.folder, self.passes(), half))
        steps = Steps()
        refuse(ValueError, "no step", lambda: steps.save(self.folder))
        steps.add(self.passes())
        refuse(ValueError, "step 1 has 6 tokens of first where 12 are needed", lambda: steps.add(half))
        refuse(
            ValueError,
            "step 1 is of first, but step 0 of first, second",
            lambda: steps.add(self.passes(layers="first")),
        )
        refuse(ValueError, "step 0 has 12 tokens of first where 20", lambda: Steps(20).add(self.passes()))
        refuse(ValueError, "tokens=0", lambda: Steps(0))

    def test_an_error_in_the_block_is_the_one_that_is_seen(self):
        with self.assertRaises(ZeroDivisionError), record(self.model, "first"):
            raise ZeroDivisionError
        self.assertFalse(self.model.first._forward_hooks)


if __name__ == "__main__":
    unittest.main()
