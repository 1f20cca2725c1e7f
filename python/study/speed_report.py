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
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(13, 4.6), layout="constrained")
    for number, (model, colour) in enumerate(zip(BATCHES, ("tab:blue", "tab:orange"))):
        label = f"{MODELS[model].title}, {BATCHES[model]} × 128 on the left"
        for place, method in enumerate(EQUAL):
            if (run := equal.get((model, method))) is not None:
                y = bar(left, place, number, run["ratio"], colour, label if place == 0 else None)
                left.plot([run["lowest"], run["highest"]], [y, y], color="black", lw=1)
                left.text(max(run["highest"], run["ratio"]), y, f" {run['ratio']:.2f}", va="center", fontsize=9)
        for place, method in enumerate(WITHIN):
            if (run := within.get((model, method))) is not None and (full := within.get((model, "full"))) is not None:
                ratio = run["tokens_per_second"] / full["tokens_per_second"]
                y = bar(right, place, number, ratio, colour, None)
                right.text(ratio, y, f" {ratio:.2f} at {run['batch']}", va="center", fontsize=9)
    for panel, methods in ((left, EQUAL), (right, WITHIN)):
        panel.axvline(1, color="black", lw=0.8)
        panel.set_yticks([-place - HEIGHT / 2 for place in range(len(methods))], [METHODS[m].title for m in methods])
        panel.margins(x=0.2)
    left.set_title("time of a step at an equal batch, of full training's", fontsize=11)
    right.set_title(f"tokens a second within {budget / 1e9:g} GB, of full's, and the batch", fontsize=11)
    figure.legend(loc="outside lower center", ncols=2, frameon=False, fontsize=9)
    save(figure, file)


# Of a bar, where two models stand beside each other.
HEIGHT = 0.4


def bar(panel, place, number, value, colour, label):
    """Draws a model's bar beside those of a method; returns where."""
    y = -place - number * HEIGHT
    panel.barh(y, value, height=HEIGHT, color=colour, label=label)
    return y


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
