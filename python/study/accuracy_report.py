"""The tables and the figure of what accuracy.py has left in a folder.

    python accuracy_report.py RESULTS --figure figure.svg --raw raw.json --page page.md

Prints the tables as Markdown, and puts them into a page that has their place marked. Draws accuracy against peak
memory, and puts the results of all runs into one JSON file. Requires matplotlib.
"""

import argparse
import json
import pathlib
import statistics
from collections import defaultdict

import pages
from accuracy import TABLE, TASKS
from finetune_report import MEGABYTE, held, spread
from methods import METHODS

NAMES = {"sentences": "Sentences", "reviews": "Reviews"}
# By the beginning or the end of a method's name.
COLOURS = {"full": "black", "lst": "tab:purple", "published": "tab:orange", "ours": "tab:green", "lora": "tab:blue"}


def read(folder):
    """Data set to method to runs, in the study's order, without what has not run."""
    found = defaultdict(lambda: defaultdict(list))
    for file in sorted(folder.glob("*.json")):
        run = json.loads(file.read_text())
        found[run["data"]][run["method"]].append(run)
    if not found:
        raise SystemExit(f"no results in {folder}")
    order = [*TABLE, *(name for name in METHODS if name not in TABLE)]
    return {
        data: {method: found[data][method] for method in order if method in found[data]}
        for data in TASKS
        if data in found
    }


def peak(run):
    """Bytes that training adds to what the process had before the model was built."""
    return run["peak"]["process"] - run["peak"]["before"]


def mean(runs, value):
    return statistics.mean(value(run) for run in runs)


def table(methods):
    rows = [
        ["method", "rate", "seeds", "accuracy", "test loss", "training loss, first epoch", "last epoch", "held, MB",
         "of full", "peak, MB", "of full", "with the process, MB", "step time, of full"],
    ]  # fmt: skip
    for name, runs in methods.items():
        total, share = held(runs, "total")
        this = mean(runs, peak)
        of_full = f"{this / mean(methods['full'], peak):.2f}" if "full" in methods else ""
        ratio = [f"{run['time_ratio']:.2f}" for run in runs if "time_ratio" in run]
        rows.append([
            f"`{name}`", f"{runs[0]['rate']:g}", str(len(runs)), spread([run["accuracy"] for run in runs], ".3f"),
            spread([run["loss"] for run in runs], ".3f"), spread([run["loss_by_epoch"][0] for run in runs], ".3f"),
            spread([run["loss_by_epoch"][-1] for run in runs], ".3f"), f"{total / MEGABYTE:.1f}", f"{share:.3f}",
            f"{this / MEGABYTE:.0f}", of_full, f"{mean(runs, lambda run: run['peak']['process']) / MEGABYTE:.0f}",
            ratio[0] if ratio else "1" if name == "full" else "",
        ])  # fmt: skip
    return pages.table(rows)


def table_of_search(methods):
    rows = [["method", *(f"{place} rate" for place in ("first", "second", "third"))]]
    for name, runs in methods.items():
        runs = sorted(runs, key=lambda run: run["rate"])
        lowest = min(runs, key=lambda run: run["loss"])
        cells = []
        for run in runs:
            cell = f"{run['loss']:.3f}, {run['accuracy']:.3f}, {run['loss_by_epoch'][-1]:.3f}"
            cells.append(f"{run['rate']:g}: " + (f"**{cell}**" if run is lowest else cell))
        rows.append([f"`{name}`", *cells])
    width = max(len(row) for row in rows)
    rows[0] += [f"{place}th rate" for place in range(len(rows[0]), width)]
    return pages.table([row + [""] * (width - len(row)) for row in rows])


def gap(methods, name):
    """How far the last epoch's training loss is above full training's, each seed for itself."""
    full = {run["seed"]: run["loss_by_epoch"][-1] for run in methods["full"]}
    return [run["loss_by_epoch"][-1] - full[run["seed"]] for run in methods[name] if run["seed"] in full]


def table_of_gaps(study):
    rows = [["last epoch's training loss above `full`'s", *(NAMES[data].lower() for data in study)]]
    for name in TABLE[1:]:
        gaps = [gap(m, name) if {name, "full"} <= set(m) else [] for m in study.values()]
        if any(gaps):
            rows.append([f"`{name}`", *(spread(values, "+.3f") if values else "" for values in gaps)])
    return pages.table(rows)


def tables(study, searched):
    parts = []
    for data, methods in study.items():
        parts += [f"### {NAMES[data]}", table(methods)]
    parts += ["### Loss above full training's", table_of_gaps(study)]
    for data, methods in searched.items():
        parts += [
            f"### Learning rates ({NAMES[data].lower()})",
            "Loss and accuracy on the third of the training set that was left out, and the last epoch's training loss.",
            table_of_search(methods),
        ]
    return "\n\n".join(parts)


def colour(method):
    return next(COLOURS[start] for start in COLOURS if method.startswith(start))


def front(points):
    """Of (peak, accuracy), those for which no other has less peak and as much accuracy, or as much peak and more."""
    best, kept = -1.0, []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if point[1] > best:
            kept.append(point)
            best = point[1]
    return kept


def label(figure, axis, points):
    """A name beside each point, where it covers no other name and no point."""
    figure.canvas.draw()
    renderer, taken = figure.canvas.get_renderer(), []
    pixels = {name: axis.transData.transform(point) for name, point in points.items()}
    places = [(dx, dy) for reach in (7, 14, 22, 32, 44, 58) for dy in (reach, -reach, 0) for dx in (reach, -reach, 0)]
    for name, point in sorted(points.items(), key=lambda item: item[1]):
        best = None
        for dx, dy in places:
            if dx == dy == 0:
                continue
            text = axis.annotate(
                name, point, (dx, dy), textcoords="offset points", fontsize=8.5, color=colour(name),
                ha="left" if dx > 0 else "right" if dx < 0 else "center",
                va="bottom" if dy > 0 else "top" if dy < 0 else "center",
                arrowprops={"arrowstyle": "-", "lw": 0.5, "color": "grey", "shrinkA": 0, "shrinkB": 3},
            )  # fmt: skip
            box = text.get_window_extent(renderer).padded(1.5)
            inside = axis.bbox.x0 < box.x0 and box.x1 < axis.bbox.x1 and axis.bbox.y0 < box.y0 and box.y1 < axis.bbox.y1
            covers = sum(box.padded(4).contains(*pixel) for pixel in pixels.values())
            if inside and not covers and not any(box.overlaps(other) for other in taken):
                best = box
                break
            text.remove()
        if best is not None:
            taken.append(best)


def draw(study, file):
    pyplot = pages.plotting()
    figure, every_axis = pyplot.subplots(
        1, len(study), figsize=(6.6 * len(study), 5.2), layout="constrained", squeeze=False
    )
    for axis, (data, methods) in zip(every_axis[0], study.items()):
        points = {}
        for name, runs in methods.items():
            values = [run["accuracy"] for run in runs]
            points[name] = (mean(runs, peak) / MEGABYTE, statistics.mean(values))
            deviation = statistics.stdev(values) if len(values) > 1 else 0
            axis.errorbar(*points[name], yerr=deviation, fmt="o", ms=6, capsize=2, lw=0.8, color=colour(name), zorder=3)
        best = front(points.values())
        axis.plot(*zip(*best), color="tab:red", lw=1.2, ls="--", zorder=1, label="Pareto front")
        axis.set_title(NAMES[data], fontsize=11)
        axis.set_xlabel("peak memory of the process above its start, MB (less is better)")
        axis.set_ylabel("accuracy on unseen texts, mean and deviation of seeds")
        axis.margins(0.16)
        axis.grid(alpha=0.25)
        axis.legend(loc="lower right", fontsize=8.5, frameon=False)
        label(figure, axis, points)
    pages.save(figure, file)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--figure", type=pathlib.Path)
    parser.add_argument("--raw", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path)
    options = parser.parse_args()
    study, searched = read(options.results / "runs"), read(options.results / "search")
    text = tables(study, searched)
    print(text)
    if options.page:
        put_into(options.page, text)
    if options.figure:
        draw(study, options.figure)
    if options.raw:
        every = [
            run for part in (study, searched) for methods in part.values() for runs in methods.values() for run in runs
        ]
        options.raw.write_text(json.dumps(every, indent=1) + "\n")


if __name__ == "__main__":
    main()
