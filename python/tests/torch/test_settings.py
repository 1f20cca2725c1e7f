"""Settings as data: what is refused, JSON, budgets and bits by layer, and changes while training."""

import unittest

import numpy
import torch
from torch import nn

from wtacrs.torch import Error, SavedBytes, Settings, convert

from .helpers import INPUTS, TOKENS, gradients, uneven


def blocks(width=64):
    """Two blocks with three layers each, of which the last two share no input."""
    torch.manual_seed(0)
    block = lambda: nn.ModuleDict({"query": nn.Linear(width, width), "up": nn.Linear(width, 2 * width)})
    return nn.ModuleDict({"encoder": nn.ModuleList([block(), block()]), "head": nn.Linear(width, width)})


def names(sampling):
    return sorted(sampling.layers)


class Refusals(unittest.TestCase):
    def test_types_are_named(self):
        for options, words in [
            ({"budget": "0.3"}, r"a budget of '0.3' \(a str\); it is a share of the rows, a number above 0"),
            ({"budget": True}, r"a budget of True \(a bool\)"),
            ({"budget": [0.3]}, r"a budget of \[0.3\] \(a list\)"),
            ({"bits": "4"}, r"no number of bits '4'; there are native, 8, 4, 2 \(this is a str\)"),
            ({"bits": [4]}, r"no number of bits \[4\]; .* \(this is a list\)"),
            ({"engine": "cublas"}, "no engine 'cublas'; there are auto, own, cublaslt"),
            ({"seed": "1"}, r"seed='1' \(a str\); it is a whole number, or None"),
            ({"samples": 1.5, "tokens_per_sample": 2}, r"samples=1.5; it is a whole number"),
            ({"activations": True}, "no way to save activations True"),
            ({"activations": "packed", "tensor_mul": "0.3"}, r"tensor_mul='0.3' \(a str\)"),
            ({"sample_kept_inputs": "yes"}, "sample_kept_inputs: 'yes'"),
            ({"skip": 3}, "skip=3; it is a pattern"),
            ({"layers": ["encoder"]}, r"layers=\['encoder'\] \(a list\); it is a dictionary"),
            ({"layers": {"encoder": 0.1}}, "layers has 'encoder': 0.1"),
            ({"layers": {"encoder": {"design": "crs"}}}, r"layers\['encoder'\] has 'design'"),
            ({"layers": {"encoder": {"budget": "0.1"}}}, "a budget of '0.1'"),
            ({"bit": 4}, "no setting 'bit'; there are budget, design"),
        ]:
            with self.subTest(options), self.assertRaisesRegex(Error, words):
                convert(blocks(), **options)

    def test_patterns_that_match_nothing(self):
        for options, words in [
            ({"skip": ["encoder.*.key"]}, r"skip has 'encoder.\*.key', which matches nothing in the model; there are"),
            ({"skip": ["head", "tail"]}, "skip has 'tail'"),
            ({"layers": {"encoder.2": {"budget": 0.1}}}, "layers has 'encoder.2'"),
        ]:
            model = blocks()
            with self.subTest(options), self.assertRaisesRegex(Error, words):
                convert(model, **options)
            self.assertEqual(repr(model), repr(blocks()))


class Patterns(unittest.TestCase):
    def test_a_module_stands_for_what_is_inside(self):
        others = ["encoder.1.query", "encoder.1.up", "head"]
        self.assertEqual(names(convert(blocks(), skip="encoder.0")), others)
        self.assertEqual(names(convert(blocks(), skip=["encoder.?"])), ["head"])
        self.assertEqual(names(convert(blocks(), skip="encoder.*.up")), ["encoder.0.query", "encoder.1.query", "head"])
        # Not a part of a name.
        with self.assertRaisesRegex(Error, "'enc'"):
            convert(blocks(), skip="enc")

    def test_functions(self):
        sampling = convert(blocks(), skip=lambda name, module: module.out_features > 64)
        self.assertEqual(names(sampling), ["encoder.0.query", "encoder.1.query", "head"])

    def test_budgets_and_bits_by_layer(self):
        layers = {"encoder": {"budget": 0.1}, "encoder.*.up": {"bits": 2}, "encoder.1.up": {"budget": 1.0}}
        sampling = convert(blocks(), 0.3, layers=layers)
        found = {name: (sampled.budget, sampled.bits) for name, sampled in sampling.sampled.items()}
        self.assertEqual(
            found,
            {
                "encoder.0.query": (0.1, 4),
                "encoder.0.up": (0.1, 2),
                "encoder.1.query": (0.1, 4),
                "encoder.1.up": (1.0, 2),
                "head": (0.3, 4),
            },
        )
        self.assertIn("budget=0.1, bits=2", repr(sampling.layers["encoder.0.up"]))

    def test_a_layer_keeps_its_own_share(self):
        class Shared(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b = nn.Linear(256, 256), nn.Linear(256, 256)

            def forward(self, h):
                return self.a(h) + self.b(h)

        model, h = Shared(), uneven(1000, 256)
        convert(model, 0.3, layers={"b": {"budget": 0.1, "bits": "native"}}, seed=1)
        with SavedBytes(model) as saved:
            z = model(h)
        rows = 300 * (256 // 2 + 8 + 12) + 100 * (4 * 256 + 12)
        self.assertLess(abs(saved.linear - rows), 0.02 * rows)
        z.sum().backward()
        torch.testing.assert_close(model.a.bias.grad, torch.full((256,), 1000.0))


class Json(unittest.TestCase):
    settings = Settings(
        budget=0.1,
        design="crs",
        source="cached",
        bits="native",
        layers={"encoder.*": {"bits": 8, "budget": 1.0}},
        skip=["head", "*.norm"],
        seed=2**63,
        samples=10,
        tokens_per_sample=20,
        activations="packed",
        activation_bits=4,
        tensor_mul=0.5,
        sample_kept_inputs=True,
    )

    def test_round_trips(self):
        for settings in (Settings(), Settings(skip="head"), self.settings):
            self.assertEqual(Settings.from_json(settings.to_json()), settings)
        self.assertEqual(Settings.from_json('{"budget": 1}'), Settings(budget=1.0))

    def test_numbers_of_numpy(self):
        numbers = {"budget": numpy.float32(0.5), "bits": numpy.int64(2), "seed": numpy.uint8(3)}
        settings = Settings(**numbers, layers={"*": {"budget": numpy.float64(0.25), "bits": numpy.int8(8)}})
        self.assertEqual(settings, Settings(0.5, bits=2, seed=3, layers={"*": {"budget": 0.25, "bits": 8}}))
        self.assertEqual(Settings.from_json(settings.to_json()), settings)

    def test_refusals(self):
        for text, words in [
            ("{", "not JSON"),
            ("[]", "an object, and this is"),
            ('{"budgets": 1}', "no setting 'budgets'"),
            ('{"bits": 5}', "no number of bits 5"),
        ]:
            with self.assertRaisesRegex(Error, words):
                Settings.from_json(text)
        with self.assertRaisesRegex(Error, "skip is a function"):
            Settings(skip=lambda name, module: False).to_json()

    def test_a_model_is_converted_by_settings(self):
        settings = Settings(budget=0.2, bits=8, skip=["head"], seed=4)
        sampling = convert(blocks(), settings)
        self.assertEqual((sampling.settings, names(sampling)[-1]), (settings, "encoder.1.up"))
        sampling = convert(blocks(), settings, bits=2)
        self.assertEqual((sampling.budget, sampling.bits, sampling.seed), (0.2, 2, 4))


class Changes(unittest.TestCase):
    def setUp(self):
        torch.manual_seed(0)
        self.model = nn.Sequential(nn.Linear(INPUTS, INPUTS), nn.GELU(), nn.Linear(INPUTS, INPUTS))
        self.h = uneven(TOKENS, INPUTS)
        self.sampling = convert(self.model, 0.3, seed=1)

    def held(self):
        with SavedBytes(self.model) as saved:
            z = self.model(self.h)
        z.sum().backward()
        return saved.linear

    def test_from_the_next_pass_on(self):
        before = self.held()
        self.sampling.set(budget=0.6)
        self.assertLess(abs(self.held() / before - 2), 0.1)
        self.sampling.set(bits=2, pattern="0")
        self.assertEqual(self.sampling.settings.layers, {"0": {"bits": 2}})
        self.assertEqual([s.bits for s in self.sampling.sampled.values()], [2, 4])
        self.sampling.set(budget=1.0, bits=8)
        self.assertEqual(self.sampling.settings, Settings(budget=1.0, bits=8, seed=1))
        self.assertEqual([s.bits for s in self.sampling.sampled.values()], [8, 8])
        self.assertTrue(self.sampling.packs_all)
        found = gradients(self.model, lambda: self.model(self.h).sum())
        self.sampling.revert()
        exact = gradients(self.model, lambda: self.model(self.h).sum())
        torch.testing.assert_close(found, exact, rtol=0.02, atol=1)

    def test_between_the_passes_of_a_step(self):
        """The backward pass follows what the forward pass has saved."""
        z = self.model(self.h)
        self.sampling.set(budget=0.1, bits=2)
        z.sum().backward()
        torch.testing.assert_close(self.model[2].bias.grad, torch.full((INPUTS,), float(TOKENS)))

    def test_refusals_change_nothing(self):
        for values, words in [
            ({"budget": "0.3"}, "a budget of '0.3'"),
            ({"bits": 3}, "no number of bits 3"),
            ({"budget": 0.1, "pattern": "2.x"}, "'2.x' matches no converted layer; there are names such as '0', '2'"),
        ]:
            with self.assertRaisesRegex(Error, words):
                self.sampling.set(**values)
        self.assertEqual(self.sampling.settings, Settings(budget=0.3, seed=1))

    def test_a_state_fits_other_settings(self):
        self.held()
        state = self.sampling.state_dict()
        self.sampling.revert()
        layers = {"2": {"budget": 1.0}}
        for options, expected in (({"bits": 2, "layers": layers}, ["0", "2"]), ({"skip": "0"}, ["2"])):
            other = convert(self.model, 0.1, **options)
            other.load_state_dict(state)
            self.assertEqual((other.seed, sorted(other.guesses)), (1, expected))
            self.held()
            other.revert()
        with self.assertRaisesRegex(Error, "layers that are not converted here: 2"):
            convert(self.model[0], 0.3).load_state_dict({**state, "guesses": {"2": state["guesses"]["2"]}})


if __name__ == "__main__":
    unittest.main()
