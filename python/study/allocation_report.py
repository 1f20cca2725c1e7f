"""The table and the figure of what allocation.py has left in a folder.

    python allocation_report.py RESULTS --page page.md --figure figure.svg --raw raw.json

Prints the tables as Markdown, and puts them into a page that has their places marked. Draws the root mean square error
of the layers' gradients over training, the memory that was asked for, and the errors beside those that were expected.
"""

import statistics

from allocation import EVERY, SHARES, configurations
from finetune_report import MEGABYTE, spread
from pages import arguments, plotting, publish, save, table
from runs import by_name

# By how labels begin; the first that fits.
COLOURS = {
    "fraction-native": "tab:orange", "fraction-4": "tab:blue", "shared-0.03": "tab:olive", "shared": "tab:green",
    "noise": "tab:purple",
}  # fmt: skip


def root_mean_square(run, begin=0):
    """Of the relative errors of all layers in all measured steps from `begin` on; None of exact gradients."""
    squared = [error for found in run["errors"] if found["step"] >= begin for error in found["squared_errors"]]
    return statistics.mean(squared) ** 0.5 if squared else None


def rows_of(runs):
    rows = [["configuration", "seeds", "training loss, first epoch", "last epoch", "of full's", "accuracy",
             "gradients' error", "after the first step", "linear layers hold, MB", "of full"]]  # fmt: skip
    full = statistics.mean(run["loss_by_epoch"][-1] for run in runs["full"]) if "full" in runs else None
    for name, same in runs.items():
        last = [run["loss_by_epoch"][-1] for run in same]
        errors, later = ([root_mean_square(run, begin) for run in same] for begin in (0, 1))
        held, whole = (
            statistics.mean(run["held"][which]["linear"] for run in same) for which in ("this", "full")
        )  # fmt: skip
        rows.append([
            f"`{name}`", str(len(same)), spread([run["loss_by_epoch"][0] for run in same], ".3f"), spread(last, ".3f"),
            "" if full is None else f"{statistics.mean(last) - full:+.3f}",
            spread([run["accuracy"] for run in same], ".3f"),
            *("" if None in each else spread(each, ".3f") for each in (errors, later)),
            f"{held / MEGABYTE:.2f}", f"{held / whole:.3f}",
        ])  # fmt: skip
    return rows


def expectations(runs):
    """Squared errors as shares of those that the planner expected."""
    rows = [["configuration", "seeds", "all layers and steps", "median of a layer in a step", "80 % are within"]]
    for name, same in runs.items():
        pairs = [pair for run in same for found in run["errors"] for pair in found["expected"]]
        if not pairs:
            continue
        of_expected = statistics.quantiles((error / expected for expected, error in pairs), n=10, method="inclusive")
        together = sum(error for _, error in pairs) / sum(expected for expected, _ in pairs)
        rows.append([
            f"`{name}`", str(len(same)), f"{together:.2f}", f"{of_expected[4]:.2f}",
            f"{of_expected[0]:.2f} to {of_expected[-1]:.2f}",
        ])  # fmt: skip
    return rows


def draw(runs, file):
    pyplot = plotting()
    figure, grid = pyplot.subplots(2, 2, figsize=(11, 8), layout="constrained")
    axes = grid.flatten()
    for place, share in enumerate(SHARES):
        for name, same in runs.items():
            if not name.endswith(f"-{share}") or name.startswith("noise"):
                continue
            plot(axes[place], same, name.removesuffix(f"-{share}"), errors_by_step)
        axes[place].set_title(f"{share:g} of the bytes")
        axes[place].set_yscale("log")
        axes[place].set_ylabel("root mean square error of layers' gradients")
    for name, same in runs.items():
        if name.startswith(("noise", "shared")):
            plot(axes[2], same, name, share_by_step)
            plot(axes[3], same, name, of_expected_by_step)
    axes[2].set_title("share of the bytes that is asked for")
    axes[3].set_title("squared error of all layers, of what was expected")
    axes[3].axhline(1, color="black", lw=0.8)
    for panel in axes:
        panel.set_xlabel("step")
        panel.legend(fontsize=8)
        panel.grid(alpha=0.3)
    save(figure, file)


def plot(panel, same, label, of):
    colour = next((colour for begin, colour in COLOURS.items() if label.startswith(begin)), "black")
    steps = [found["step"] for found in same[0]["errors"]]
    by_step = [(step, values) for step, values in zip(steps, zip(*map(of, same))) if None not in values]
    steps, lines = [step for step, _ in by_step], zip(*(values for _, values in by_step))
    for line in lines:
        panel.plot(steps, line, color=colour, alpha=0.25, lw=0.8)
    panel.plot(steps, [statistics.mean(values) for _, values in by_step], color=colour, label=label)


def errors_by_step(run):
    return [statistics.mean(found["squared_errors"]) ** 0.5 for found in run["errors"]]


def share_by_step(run):
    return [found["share"] for found in run["errors"]]


def of_expected_by_step(run):
    """None before anything was expected."""
    sums = [[sum(numbers) for numbers in zip(*found["expected"])] for found in run["errors"]]
    return [both[1] / both[0] if both else None for both in sums]


def main():
    options = arguments(__doc__).parse_args()
    runs = by_name(options.results, configurations())
    print(f"gradients are compared in every step of {EVERY}")
    tables = {"one budget": table(rows_of(runs)), "expected errors": table(expectations(runs))}
    publish(options, tables, lambda file: draw(runs, file), [run for same in runs.values() for run in same])


if __name__ == "__main__":
    main()
