"""The tables and the figure of what memory.py has left in a folder.

    python memory_report.py RESULTS --page page.md --figure figure.svg --raw raw.json

Prints the tables as Markdown, and puts them into a page that has their places marked. Numbers are for 64 sequences.
Where these were not measured, held bytes lie on the line through the two largest batches that were, and so does what
the peak has beyond the sum of its parts. Requires matplotlib for the figure.
"""

import json
from collections import defaultdict

from memory import FEW, LASTING, TABLE, WHOLE, sum_of_parts, working
from methods import METHODS
from models import MODELS
from pages import arguments, plotting, publish, save, table

GIGABYTE = 1e9
# GB at 64 sequences on a GPU, in the paper's table of memory (Liu et al., NeurIPS 2023).
PUBLISHED = {
    "t5-base": {
        "full": 17.66, "lora": 13.84, "lst": 5.50, "published-0.3": 8.44, "published-0.1": 7.30,
        "lora+published-0.3": 6.50, "lora+published-0.1": 5.44,
    },
    "t5-large": {
        "full": 45.85, "lora": 36.83, "lst": 14.85, "published-0.3": 21.58, "published-0.1": 18.46,
        "lora+published-0.3": 17.44, "lora+published-0.1": 14.64,
    },
}  # fmt: skip


def read(folder):
    """By model and method, the measurements by their batches."""
    found = defaultdict(lambda: defaultdict(dict))
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        if "by_operator" in run:
            found[run["model"]][run["method"]][run["batch"]] = run
    if not found:
        raise SystemExit(f"no measurements in {folder}")
    return {
        model: {method: found[model][method] for method in TABLE if method in found[model]}
        for model in MODELS
        if model in found
    }


class Whole:
    """A measurement for 64 sequences, or what smaller ones show of it. `batch` is the largest that was measured."""

    def __init__(self, by_batch, full):
        """`full` is full training's measurement with eight sequences."""
        few = by_batch[FEW]
        *others, self.batch = sorted(by_batch)
        largest, smaller = by_batch[self.batch], by_batch[others[-1] if others else self.batch]
        ahead = (WHOLE - self.batch) / max(1, self.batch - smaller["batch"])

        def at_whole(of):
            return of(largest) + (of(largest) - of(smaller)) * ahead

        # Without a smaller batch, what is held is in proportion.
        grown = 1 if others else WHOLE / self.batch
        self.parts = {part: at_whole(lambda run: run[part]) for part in (*LASTING, "gradients")}
        self.by_operator = {name: at_whole(lambda run: run["by_operator"][name]) * grown for name in few["by_operator"]}
        self.parts["held"] = self.held = sum(self.by_operator.values())
        self.imported = self.parts["imported"]
        self.sum, self.working = sum_of_parts(few, full, WHOLE), working(few["method"], full, WHOLE)
        # The sum bends where another moment of the step has the most, and what is beyond it is a line.
        self.peak = self.sum + at_whole(lambda run: run["peak"] - sum_of_parts(few, full, run["batch"]))
        self.of_sum = self.peak / self.sum


def gigabytes(count):
    return f"{count / GIGABYTE:.2f}"


def peaks(model, methods):
    published = PUBLISHED.get(model, {})
    rows = [
        ["method", "parameters", "gradients", "AdamW", "held", "of full's", "operators' own", "sum of parts",
         "measured peak", "of the sum", "full / this", "without the imports", "batch", "published, GB", "full / this"],
    ]  # fmt: skip
    full = methods["full"]
    for name, whole in methods.items():
        paper = published.get(name)
        rows.append([
            METHODS[name].title, *(gigabytes(whole.parts[part]) for part in ("parameters", "gradients", "optimizer")),
            gigabytes(whole.held), f"{whole.held / full.held:.3f}", gigabytes(whole.working),
            gigabytes(whole.sum),
            f"**{gigabytes(whole.peak)}**", f"{whole.of_sum:.3f}", f"**{full.peak / whole.peak:.2f}**",
            f"{(full.peak - full.imported) / (whole.peak - whole.imported):.2f}",
            str(whole.batch) if whole.batch == WHOLE else f"{whole.batch}, line",
            "" if paper is None else f"{paper:.2f}", "" if paper is None else f"{published['full'] / paper:.1f}",
        ])  # fmt: skip
    return table(rows)


def operators(methods):
    names = [n for n in next(iter(methods.values())).by_operator if any(m.by_operator[n] for m in methods.values())]
    rows = [["held, GB", *names, "all"]]
    for name, whole in methods.items():
        rows.append([METHODS[name].title, *(gigabytes(whole.by_operator[n]) for n in names), gigabytes(whole.held)])
    return table(rows)


def draw(study, file):
    pyplot = plotting()
    figure, axes = pyplot.subplots(
        1, len(study), figsize=(4.2 * len(study) + 2.6, 4.6), sharey=True, layout="constrained", squeeze=False
    )
    named = {"parameters": "parameters", "gradients": "gradients", "optimizer": "AdamW's state", "imported": "imports"}
    colours = dict(zip([*named, "held"], ["#8c96a8", "#b9c0cc", "#d7dbe2", "#ececec", "tab:blue"]))
    names = [name for name in TABLE if any(name in methods for methods in study.values())]
    axes[0][0].set_yticks([-place for place in range(len(names))], [METHODS[name].title for name in names])
    for axis, (model, methods) in zip(axes[0], study.items()):
        for name, whole in methods.items():
            place, left = names.index(name), 0
            for part in [*named, "held"]:
                width = whole.parts[part] / GIGABYTE
                label = named.get(part, "held for the backward pass") if place == 0 else None
                axis.barh(-place, width, left=left, height=0.7, color=colours[part], label=label)
                left += width
            peak = whole.peak / GIGABYTE
            label = "measured peak" if place == 0 else None
            axis.plot([peak], [-place], "|", color="black", ms=15, mew=2, label=label)
            axis.text(max(left, peak), -place, f"  {peak:.1f}", va="center", fontsize=9)
        axis.set_title(f"{MODELS[model].title}, 64 × 128 tokens", fontsize=11)
        axis.set_xlabel("GB")
        axis.margins(x=0.12)
    handles, labels = axes[0][0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=9, frameon=False)
    save(figure, file)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--figure-models", nargs="*", choices=MODELS, default=["t5-base", "t5-large"])
    options = parser.parse_args()
    measured = read(options.results)
    study = {
        model: {name: Whole(runs, methods["full"][FEW]) for name, runs in methods.items()}
        for model, methods in measured.items()
        if "full" in methods
    }
    tables = {}
    for model, methods in study.items():
        tables |= {f"peaks of {model}": peaks(model, methods), f"operators of {model}": operators(methods)}
    shown = {model: study[model] for model in options.figure_models if model in study} or study
    runs = [run for methods in measured.values() for sizes in methods.values() for run in sizes.values()]
    publish(options, tables, lambda file: draw(shown, file), runs)


if __name__ == "__main__":
    main()
