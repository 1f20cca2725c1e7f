"""The tables and the figure of what accuracy.py has left in a folder.

    python accuracy_report.py RESULTS --page page.md --figure figure.svg --raw raw.json

Prints the tables as Markdown, and puts them into a page that has their places marked. Draws accuracy against peak
memory, and puts the results of all runs into one JSON file. Requires matplotlib for the figure.
"""

import json
import statistics
from collections import defaultdict

import pages
from accuracy import TABLE, TASKS
from finetune_report import MEGABYTE, held, spread
from methods import METHODS

KINDS = ("search", "train", "at-rate", "cost")
# By how a method's name begins.
COLOURS = {"full": "black", "lst": "tab:purple", "published": "tab:orange", "ours": "tab:green", "lora": "tab:blue"}
ORDER = [*TABLE, *(name for name in METHODS if name not in TABLE)]


def read(folder):
    """Data set to method to runs, in the study's order, without what has not run."""
    found = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        found[run["data"]][run["method"]].append(run)
    return {
        data: {method: found[data][method] for method in ORDER if method in found[data]}
        for data in TASKS
        if data in found
    }


def peak(run):
    """Bytes that training adds to what the process had before the model was built."""
    return run["peak"] - run["before"]


def accuracies(methods, costs):
    rows = [
        ["method", "rate", "seeds", "accuracy", "test loss", "training loss, first epoch", "last epoch", "held, MB",
         "of full", "peak, MB", "of full", "with the process, MB", "step time, of full"],
    ]  # fmt: skip
    for name, runs in methods.items():
        row = [f"`{name}`", f"{runs[0]['rate']:g}", str(len(runs))]
        values = [
            (run["accuracy"], run["loss"], run["loss_by_epoch"][0], run["loss_by_epoch"][-1])
            for run in runs
        ]  # fmt: skip
        row += [spread(of_one, ".3f") for of_one in zip(*values)]
        if name in costs and "full" in costs:
            cost, full = costs[name][0], costs["full"][0]
            total, share = held(costs[name], "total")
            row += [
                f"{total / MEGABYTE:.1f}", f"{share:.3f}", f"{peak(cost) / MEGABYTE:.0f}",
                f"{peak(cost) / peak(full):.2f}", f"{cost['peak'] / MEGABYTE:.0f}", f"{cost['time_ratio']:.2f}",
            ]  # fmt: skip
        rows.append(row + [""] * (len(rows[0]) - len(row)))
    return pages.table(rows)


def learning_rates(methods):
    """By method, at each rate: loss and accuracy on what was left out, and the last epoch's training loss."""
    rows = []
    for name, runs in methods.items():
        lowest = min(runs, key=lambda run: run["loss"])
        cells = []
        for run in sorted(runs, key=lambda run: run["rate"]):
            cell = f"{run['rate']:g}: {run['loss']:.3f}, {run['accuracy']:.3f}, {run['loss_by_epoch'][-1]:.3f}"
            cells.append(f"**{cell}**" if run is lowest else cell)
        rows.append([f"`{name}`", *cells])
    width = max(len(row) for row in rows)
    head = ["method", "loss and accuracy of what was left out, last epoch's training loss"]
    return pages.table([row + [""] * (width - len(row)) for row in [head, *rows]])


def above(runs, full):
    """How far the last epoch's training loss is above full training's, each seed for itself."""
    of_full = {run["seed"]: run["loss_by_epoch"][-1] for run in full}
    return [run["loss_by_epoch"][-1] - of_full[run["seed"]] for run in runs if run["seed"] in of_full]


def gaps(trained, at_rates):
    """At the rates that were chosen, and, where there are such runs, at the rate of full training."""
    rows = [["method", *(f"{data}, {which}" for data in trained for which in ("own rates", "full's rate"))]]
    for name in ORDER[1:]:
        row = [f"`{name}`"]
        for data, methods in trained.items():
            full, runs = methods.get("full", []), methods.get(name, [])
            every = [*runs, *at_rates.get(data, {}).get(name, [])]
            at_fulls = [run for run in every if full and run["rate"] == full[0]["rate"]]
            for some in (runs, at_fulls):
                values = above(some, full)
                row.append(f"{spread(values, '+.3f').replace('± +', '± ')}" if values else "")
        if any(row[1:]):
            rows.append(row)
    return pages.table(rows)


def other_rates(at_rates):
    rows = [["method", "data", "rate", "seeds", "accuracy", "test loss", "training loss, last epoch"]]
    for data, methods in at_rates.items():
        for name, runs in methods.items():
            for rate in sorted({run["rate"] for run in runs}):
                some = [run for run in runs if run["rate"] == rate]
                values = [(run["accuracy"], run["loss"], run["loss_by_epoch"][-1]) for run in some]
                spreads = [spread(of_one, ".3f") for of_one in zip(*values)]
                rows.append([f"`{name}`", data, f"{rate:g}", str(len(some)), *spreads])
    return pages.table(rows)


def colour(method):
    return next(COLOURS[start] for start in COLOURS if method.startswith(start))


def front(points):
    """Of points of peak and accuracy those that no other one beats in both."""
    kept = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not kept or point[1] > kept[-1][1]:
            kept.append(point)
    return kept


def label(figure, axis, points):
    """A name beside each point, where it covers neither another name nor a point."""
    from matplotlib.text import Text

    figure.canvas.draw()
    renderer = figure.canvas.get_renderer()
    pixels = [axis.transData.transform(point) for point in points.values()]
    taken = []
    reaches = [(dx * reach, dy * reach) for reach in range(6, 80, 4) for dx in (1, -1, 0) for dy in (0, 1, -1)]
    for name, point in sorted(points.items(), key=lambda item: item[1]):
        for dx, dy in reaches:
            text = axis.annotate(
                name, point, (dx, dy), textcoords="offset points", fontsize=9, color=colour(name),
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "grey", "shrinkA": 0, "shrinkB": 4},
                bbox={"fc": "white", "alpha": 0.7, "lw": 0, "pad": 0.5},
            )  # fmt: skip
            text.update_positions(renderer)
            # An annotation's own extent has its arrow in it.
            box = Text.get_window_extent(text, renderer).padded(2)
            inside = all(axis.bbox.contains(*corner) for corner in box.corners())
            free = not any(box.overlaps(other) for other in taken)
            if inside and free and not any(box.padded(3).contains(*pixel) for pixel in pixels):
                taken.append(box)
                break
            text.remove()


def draw(trained, costs, file):
    pyplot = pages.plotting()
    figure, axes = pyplot.subplots(
        1, len(trained), figsize=(6.6 * len(trained), 5.2), layout="constrained", squeeze=False
    )
    every_point = []
    for axis, (data, methods) in zip(axes[0], trained.items()):
        points = {}
        for name, runs in methods.items():
            if name not in costs.get(data, {}):
                continue
            values = [run["accuracy"] for run in runs]
            x, y = points[name] = (peak(costs[data][name][0]) / MEGABYTE, statistics.mean(values))
            deviation = statistics.stdev(values) if len(values) > 1 else 0
            axis.plot(x, y, "o", ms=7, color=colour(name), zorder=3)
            axis.errorbar(x, y, yerr=deviation, capsize=3, lw=1, alpha=0.4, color=colour(name), zorder=2)
        axis.plot(*zip(*front(points.values())), color="tab:red", lw=1.3, ls="--", zorder=1, label="Pareto front")
        axis.set_title(data, fontsize=11)
        axis.set_xlabel("peak memory beyond the process's start, MB")
        axis.margins(0.14)
        axis.grid(alpha=0.25)
        axis.legend(loc="lower right", fontsize=9, frameon=False)
        every_point.append((axis, points))
    axes[0][0].set_ylabel("accuracy on unseen texts, mean and deviation of seeds")
    # A layout that names no longer move.
    figure.canvas.draw()
    figure.set_layout_engine("none")
    for axis, points in every_point:
        label(figure, axis, points)
    pages.save(figure, file)


def main():
    options = pages.arguments(__doc__).parse_args()
    every = {kind: read(options.results / kind) for kind in KINDS}
    trained, costs = every["train"], every["cost"]
    if not trained:
        raise SystemExit(f"no results in {options.results / 'train'}")
    tables = {f"accuracy on {data}": accuracies(methods, costs.get(data, {})) for data, methods in trained.items()}
    tables["loss above that of full training"] = gaps(trained, every["at-rate"])
    if every["at-rate"]:
        tables["other rates"] = other_rates(every["at-rate"])
    tables |= {f"learning rates of {data}": learning_rates(methods) for data, methods in every["search"].items()}
    shown = {data: methods for data, methods in trained.items() if data in costs}
    runs = [run for kind in every.values() for methods in kind.values() for runs in methods.values() for run in runs]
    pages.publish(options, tables, lambda file: draw(shown, costs, file), runs)


if __name__ == "__main__":
    main()
