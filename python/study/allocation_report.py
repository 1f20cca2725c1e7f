"""The table and the figure of what allocation.py has left in a folder.

    python allocation_report.py RESULTS --page page.md --figure figure.svg --raw raw.json

Prints the table as Markdown, and puts it into a page that has its place marked. Draws the root mean square error of the
layers' gradients over training.
"""

import statistics

from allocation import EVERY, SHARES, configurations
from finetune_report import MEGABYTE, spread
from pages import arguments, plotting, publish, save, table
from runs import by_name

COLOURS = {"fraction-native": "tab:orange", "fraction-4": "tab:blue", "shared": "tab:green", "noise": "tab:purple"}


def root_mean_square(run):
    """Of the relative errors of all layers in all measured steps; None of exact gradients."""
    squared = [error for found in run["errors"] for error in found["squared_errors"]]
    return statistics.mean(squared) ** 0.5 if squared else None


def rows_of(runs):
    rows = [["configuration", "seeds", "training loss, first epoch", "last epoch", "of full's", "accuracy",
             "gradients' error", "linear layers hold, MB", "of full"]]  # fmt: skip
    full = statistics.mean(run["loss_by_epoch"][-1] for run in runs["full"]) if "full" in runs else None
    for name, same in runs.items():
        last = [run["loss_by_epoch"][-1] for run in same]
        errors = [root_mean_square(run) for run in same]
        held, whole = (
            statistics.mean(run["held"][which]["linear"] for run in same) for which in ("this", "full")
        )  # fmt: skip
        rows.append([
            f"`{name}`", str(len(same)), spread([run["loss_by_epoch"][0] for run in same], ".3f"), spread(last, ".3f"),
            "" if full is None else f"{statistics.mean(last) - full:+.3f}",
            spread([run["accuracy"] for run in same], ".3f"),
            "" if None in errors else spread(errors, ".3f"), f"{held / MEGABYTE:.2f}", f"{held / whole:.3f}",
        ])  # fmt: skip
    return rows


def draw(runs, file):
    pyplot = plotting()
    figure, axes = pyplot.subplots(1, 3, figsize=(13, 4), layout="constrained")
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
    axes[2].set_title("share of the bytes that is asked for")
    for panel in axes:
        panel.set_xlabel("step")
        panel.legend(fontsize=8)
        panel.grid(alpha=0.3)
    save(figure, file)


def plot(panel, same, label, of):
    colour = next((colour for begin, colour in COLOURS.items() if label.startswith(begin)), "black")
    lines = [of(run) for run in same]
    steps = [found["step"] for found in same[0]["errors"]]
    for line in lines:
        panel.plot(steps, line, color=colour, alpha=0.25, lw=0.8)
    panel.plot(steps, [statistics.mean(values) for values in zip(*lines)], color=colour, label=label)


def errors_by_step(run):
    return [statistics.mean(found["squared_errors"]) ** 0.5 for found in run["errors"]]


def share_by_step(run):
    return [found["share"] for found in run["errors"]]


def main():
    options = arguments(__doc__).parse_args()
    runs = by_name(options.results, configurations())
    print(f"gradients are compared in every step of {EVERY}")
    tables = {"one budget": table(rows_of(runs))}
    publish(options, tables, lambda file: draw(runs, file), [run for same in runs.values() for run in same])


if __name__ == "__main__":
    main()
