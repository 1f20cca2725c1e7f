"""Speed of one layer's weight gradient on the CPU, as shares of torch's exact product: our exact product, and whole
estimates, which are a forward and a backward pass: norms of H and of dZ, selection, kept rows and product.

    python product_speed.py                        # a table for bf16, f16 and f32
    python product_speed.py --dtypes bfloat16 --rounds 41

All cases of a layer run by turns in one process, so that they see the same neighbours on a machine that others use. A
cell contains the ratio of median times.
"""

import argparse
import functools
import itertools
import os
import statistics
import time

# Else torch's threads wait busily, on the cores that the next case runs on.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import torch  # noqa: E402

from wtacrs.torch.devices import device_of  # noqa: E402
from wtacrs.torch.linear.plans import plan_for  # noqa: E402

TOKENS = 4096
SHAPES = ((1536, 384), (384, 1536))
# Share of the rows, and bits of a kept one.
ESTIMATES = ((0.3, "native"), (0.1, "native"), (0.3, 4), (0.1, 4))


def rows_of(columns, dtype):
    """Rows like a layer's: their sizes are spread over two orders of magnitude."""
    sizes = torch.exp(6 * torch.rand(TOKENS, 1) - 3)
    return (sizes * (torch.rand(TOKENS, columns) - 0.5)).to(dtype)


def cases_of(in_features, out_features, dtype):
    """What is timed, by its name."""
    h, dz = rows_of(in_features, dtype), rows_of(out_features, dtype)
    norms = dz.float().norm(dim=1)
    device = device_of(h.device)

    def plan(budget, bits):
        shape = (TOKENS, in_features, out_features)
        return plan_for(device, shape, dtype, budget, bits, "wta-pivotal", "norms", "auto", "f32")

    exact = plan(1.0, "native")
    all_rows = exact.forward(h, norms, None, 0, 0)
    cases = {
        "torch": lambda: dz.T @ h,
        "exact": lambda: exact.backward(all_rows, dz, with_bias=False, with_norms=False),
    }
    offsets = itertools.count(step=TOKENS)

    def estimate(plan):
        block = plan.forward(h, norms, None, 1, next(offsets))
        return plan.backward(block, dz, with_bias=False, with_norms=True)

    estimates = {f"{budget}, {bits}": functools.partial(estimate, plan(budget, bits)) for budget, bits in ESTIMATES}
    return cases | estimates


def median_times(cases, rounds):
    times = {name: [] for name in cases}
    for turn in range(rounds + 1):
        for name, run in cases.items():
            start = time.perf_counter()
            run()
            if turn > 0:
                times[name].append(time.perf_counter() - start)
    return {name: statistics.median(measured) for name, measured in times.items()}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    names = ("bfloat16", "float16", "float32")
    parser.add_argument("--dtypes", nargs="*", choices=names, default=list(names))
    parser.add_argument("--rounds", type=int, default=31)
    options = parser.parse_args()
    torch.manual_seed(0)
    print(f"{TOKENS} tokens, {torch.get_num_threads()} threads; cells are shares of torch's exact time\n")
    head = ["layer", "dtype", "torch ms", "exact", *(f"{k} of the rows, {bits}" for k, bits in ESTIMATES)]
    print("| " + " | ".join(head) + " |\n|" + "---|" * len(head))
    for dtype in options.dtypes:
        for shape in SHAPES:
            times = median_times(cases_of(*shape, getattr(torch, dtype)), options.rounds)
            torch_time = times.pop("torch")
            cells = [f"{shape[0]}→{shape[1]}", dtype, f"{torch_time * 1e3:.1f}"]
            print("| " + " | ".join(cells + [f"{t / torch_time:.2f}" for t in times.values()]) + " |", flush=True)


if __name__ == "__main__":
    main()
