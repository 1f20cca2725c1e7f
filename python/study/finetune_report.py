"""The table and the figure of a study's results, which finetune.py has left in a folder.

    python finetune_report.py RESULTS --figure figure.svg --raw raw.json --page page.md

Prints the table as Markdown, and puts it into a page that has its place marked. Draws the figure, and puts the results
of all runs into one JSON file. Requires matplotlib.
"""

import statistics

import pages
from finetune import configurations
from runs import by_name

MEGABYTE = 1e6


def spread(values, form):
    deviation = f" ± {statistics.stdev(values):{form}}" if len(values) > 1 else ""
    return f"{statistics.mean(values):{form}}{deviation}"


def held(runs, what):
    """Bytes held for the backward pass of the first seed's batch, which is the same for all configurations, and their
    share of what full training holds for it."""
    first = min(runs, key=lambda run: run["seed"])
    this, full = (first["saved"][which][what] for which in ("this", "full"))
    return this, this / full


def table(study):
    rows = [
        ["configuration", "seeds", "accuracy", "training loss, first epoch", "last epoch", "linear layers hold, MB",
         "of full", "all held, MB", "of full", "step time, of full"],
    ]  # fmt: skip
    for name, runs in study.items():
        linear, linear_share = held(runs, "linear")
        total, total_share = held(runs, "total")
        ratio = [f"{run['time_ratio']:.2f}" for run in runs if "time_ratio" in run]
        rows.append([
            f"`{name}`", str(len(runs)), spread([run["accuracy"] for run in runs], ".3f"),
            spread([run["loss_by_epoch"][0] for run in runs], ".3f"),
            spread([run["loss_by_epoch"][-1] for run in runs], ".3f"),
            f"{linear / MEGABYTE:.1f}", f"{linear_share:.3f}", f"{total / MEGABYTE:.1f}", f"{total_share:.3f}",
            ratio[0] if ratio else "1",
        ])  # fmt: skip
    return pages.table(rows)


def draw(study, file):
    pyplot = pages.plotting()
    names = list(study)
    places = {name: -place for place, name in enumerate(names)}
    colours = {"full": "black", "all": "tab:green", "0.3": "tab:blue", "0.1": "tab:orange"}
    colour = {name: next(colours[part] for part in name.split("-") if part in colours) for name in names}
    figure, axes = pyplot.subplots(1, 3, figsize=(12, 0.36 * len(names) + 0.9), sharey=True, layout="constrained")
    measures = [
        ("accuracy on unseen sentences", lambda run: run["accuracy"]),
        ("training loss, last epoch", lambda run: run["loss_by_epoch"][-1]),
    ]
    for axis, (title, value) in zip(axes, measures):
        for name, runs in study.items():
            values = [value(run) for run in runs]
            axis.plot(values, [places[name]] * len(values), "o", mfc="none", ms=5, alpha=0.6, color=colour[name])
            deviation = statistics.stdev(values) if len(values) > 1 else 0
            axis.errorbar(
                statistics.mean(values), places[name], xerr=deviation, fmt="|", ms=14, mew=2, capsize=3,
                color=colour[name],
            )  # fmt: skip
        full = [value(run) for run in study.get("full", [])]
        if len(full) > 1:
            middle, deviation = statistics.mean(full), statistics.stdev(full)
            axis.axvspan(middle - deviation, middle + deviation, color="black", alpha=0.08, lw=0)
        axis.set_title(title, fontsize=11)
        axis.grid(axis="x", alpha=0.3)
    for name, runs in study.items():
        linear, total = held(runs, "linear")[0] / MEGABYTE, held(runs, "total")[0] / MEGABYTE
        axes[2].barh(places[name], linear, height=0.6, color=colour[name])
        axes[2].barh(places[name], total - linear, left=linear, height=0.6, color="lightgrey")
        axes[2].text(linear + 2, places[name], f"{linear:.0f}", va="center", fontsize=9)
    axes[2].set_title("MB held (grey: not linear layers)", fontsize=11)
    axes[0].set_yticks(list(places.values()), names)
    pages.save(figure, file)


def main():
    options = pages.arguments(__doc__).parse_args()
    study = by_name(options.results, configurations())
    runs = [run for runs in study.values() for run in runs]
    pages.publish(options, {"table": table(study)}, lambda file: draw(study, file), runs)


if __name__ == "__main__":
    main()
