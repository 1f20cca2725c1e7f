"""The tables of what speed.py has left in a folder.

    python speed_report.py RESULTS --page page.md --raw raw.json

Prints the tables as Markdown, and puts them into a page that has their places marked.
"""

import json
import statistics

import speed
from memory import FEW, measurement, sum_of_parts
from methods import METHODS
from models import MODELS
from pages import arguments, plotting, publish, save, table
from speed import BATCHES, EQUAL, WITHIN


def read(folder, budget):
    """Runs at an equal batch and within the budget, by model and method."""
    equal, within = {}, {}
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        place = run.get("model"), run.get("method")
        if file.name.startswith("equal-"):
            equal[place] = run
        elif file.name.startswith(speed.within(budget)):
            few, full = (measurement(folder, run["model"], method, FEW) for method in (run["method"], "full"))
            within[place] = run | {"sum_of_parts": sum_of_parts(few, full, run["batch"])}
    if not equal and not within:
        raise SystemExit(f"no runs in {folder}")
    return equal, within


def at_equal_batch(runs):
    rows = [
        ["method", *(f"{MODELS[model].title}, {size} × 128" for model, size in BATCHES.items() if shown(runs, model))]
    ]
    for method in EQUAL:
        cells = [cell(runs.get((model, method))) for model in BATCHES if shown(runs, model)]
        if any(cells):
            rows.append([METHODS[method].title, *cells])
    return table(rows)


def shown(runs, model):
    return any(name == model for name, _ in runs)


def cell(run):
    if run is None:
        return ""
    return f"**{run['ratio']:.2f}** ({run['lowest']:.2f} to {run['highest']:.2f}), {run['processor_ratio']:.2f}"


def within_budget(runs, model):
    rows = [["method", "largest batch", "sum of parts, GB", "with what glibc keeps, GB", "seconds a step",
             "tokens a second", "of full's"]]  # fmt: skip
    full = runs[model, "full"]["tokens_per_second"]
    for method in WITHIN:
        if (run := runs.get((model, method))) is not None:
            rows.append([
                METHODS[method].title, str(run["batch"]),
                f"{run['sum_of_parts'] / 1e9:.2f}", f"{run['peak'] / 1e9:.2f}",
                f"{statistics.median(run['seconds']):.1f}", f"{run['tokens_per_second']:.0f}",
                f"{run['tokens_per_second'] / full:.2f}",
            ])  # fmt: skip
    return table(rows)


def draw(equal, within, budget, file):
    pyplot = plotting()
    figure, axes = pyplot.subplots(1, 2, figsize=(11, 4), layout="constrained")
    models = [model for model in BATCHES if shown(equal, model)]
    height = 0.8 / max(1, len(models))
    for number, (model, colour) in enumerate(zip(models, ("tab:blue", "tab:orange"))):
        named = f"{MODELS[model].title}, {BATCHES[model]} × 128"
        for place, method in enumerate(EQUAL):
            if (run := equal.get((model, method))) is not None:
                y = -place - number * height
                axes[0].barh(y, run["ratio"], height=height, color=colour, label=named if place == 0 else None)
                axes[0].plot([run["lowest"], run["highest"]], [y, y], color="black", lw=1)
                axes[0].text(max(run["highest"], run["ratio"]), y, f" {run['ratio']:.2f}", va="center", fontsize=9)
    axes[0].axvline(1, color="black", lw=0.8)
    axes[0].set_yticks(
        [-p - height * (len(models) - 1) / 2 for p in range(len(EQUAL))], [METHODS[m].title for m in EQUAL]
    )
    axes[0].set_title("time of a step at an equal batch, of full training's", fontsize=11)
    axes[0].legend(fontsize=9, frameon=False, loc="lower right")
    for model, colour in zip(models, ("tab:blue", "tab:orange")):
        runs = [(method, within[model, method]) for method in WITHIN if (model, method) in within]
        axes[1].plot(
            [run["batch"] for _, run in runs], [run["tokens_per_second"] for _, run in runs], "o", color=colour,
            label=MODELS[model].title,
        )  # fmt: skip
        for method, run in runs:
            axes[1].annotate(
                METHODS[method].title, (run["batch"], run["tokens_per_second"]), xytext=(5, 4), fontsize=8,
                textcoords="offset points",
            )  # fmt: skip
    axes[1].set_title(f"within {budget / 1e9:g} GB", fontsize=11)
    axes[1].set_xlabel("largest batch, sequences")
    axes[1].set_ylabel("tokens a second")
    axes[1].margins(x=0.25)
    save(figure, file)


def main():
    parser = arguments(__doc__)
    parser.add_argument("--budget", type=float, default=8e9, help="bytes, as of speed.py")
    options = parser.parse_args()
    equal, within = read(options.results, options.budget)
    tables = {"equal batch": at_equal_batch(equal)}
    for model in BATCHES:
        if (model, "full") in within:
            tables[f"{model} within the budget"] = within_budget(within, model)
    runs = [*equal.values(), *within.values()]
    publish(options, tables, lambda file: draw(equal, within, options.budget, file), runs)


if __name__ == "__main__":
    main()
