"""When predictors learn: often at first, then seldom, in eager and in traced passes alike."""

import copy
import pickle
import unittest

import torch

from wtacrs.torch import convert
from wtacrs.torch.linear.guesses import SELDOM, WARM_UP, learns_from

SEED = 5


def layers():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(64, 64), torch.nn.LayerNorm(64), torch.nn.Linear(64, 64)).train()


def rows(step):
    return torch.randn(64, 64, generator=torch.Generator().manual_seed(step))


def predictors(sampling):
    return sampling.state_dict()["guesses"]


class Seldom(unittest.TestCase):
    def test_all_first_passes_teach_and_then_fewer(self):
        self.assertTrue(all(map(learns_from, range(WARM_UP))))
        share = lambda first, last: sum(map(learns_from, range(first, last))) / (last - first)
        self.assertEqual(share(WARM_UP, 2 * WARM_UP), 1 / 2)
        self.assertEqual(share(2 * WARM_UP, 4 * WARM_UP), 1 / 4)
        self.assertEqual(share(4 * WARM_UP, 20 * WARM_UP), 1 / SELDOM)

    def test_a_pass_that_does_not_teach_changes_nothing(self):
        model = layers()
        sampling = convert(model, 0.3, seed=SEED)
        for step in range(WARM_UP + 4):
            before = predictors(sampling)
            model(rows(step)).sin().sum().backward()
            after = predictors(sampling)
            self.assertTrue(after)
            for name, data in before.items():
                self.assertEqual(not torch.equal(data, after[name]), learns_from(step), (name, step))
        self.assertEqual(set(sampling.state_dict()["passes"].values()), {WARM_UP + 4})

    def test_a_continued_run_has_the_same_bits(self):
        def run(restart):
            model = layers()
            sampling = convert(model, 0.3, seed=SEED)
            for step in range(WARM_UP + 6):
                if step == WARM_UP + 1 and restart == "state":
                    states = copy.deepcopy((model.state_dict(), sampling.state_dict()))
                    model = layers()
                    sampling = convert(model, 0.3, seed=SEED)
                    model.load_state_dict(states[0])
                    sampling.load_state_dict(states[1])
                elif step == WARM_UP + 1 and restart == "pickle":
                    model, sampling = pickle.loads(pickle.dumps((model, sampling)))
                model.zero_grad()
                model(rows(step)).sin().sum().backward()
            return [*(p.grad for p in model.parameters()), *predictors(sampling).values()]

        expected = run(None)
        for restart in ("state", "pickle"):
            for found, wanted in zip(run(restart), expected, strict=True):
                self.assertTrue(torch.equal(found, wanted), restart)

    def test_compiled_passes_learn_from_the_same(self):
        def run(backend):
            model = layers()
            sampling = convert(model, 0.3, seed=SEED)
            step_of = model if backend is None else torch.compile(model, fullgraph=True, backend=backend)
            for step in range(WARM_UP + 4):
                model.zero_grad()
                step_of(rows(step)).sin().sum().backward()
            return [*(p.grad for p in model.parameters()), *predictors(sampling).values()]

        for eager, compiled in zip(run(None), run("aot_eager"), strict=True):
            self.assertTrue(torch.equal(eager, compiled))

    def test_an_older_state_begins_with_the_first_passes(self):
        model = layers()
        sampling = convert(model, 0.3, seed=SEED)
        model(rows(0)).sum().backward()
        state = sampling.state_dict()
        del state["passes"]
        sampling.load_state_dict(state)
        self.assertEqual(set(sampling.state_dict()["passes"].values()), {0})


if __name__ == "__main__":
    unittest.main()
