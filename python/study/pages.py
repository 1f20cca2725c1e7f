"""What reports share: tables in pages of docs/results, and figures without what changes from run to run."""

import argparse
import json
import pathlib
import re


def table(rows):
    """Rows of text as Markdown, the first one as the head."""
    lines = [rows[0], ["---"] * len(rows[0]), *rows[1:]]
    return "\n".join(f"| {' | '.join(row)} |" for row in lines)


def put(page, name, text):
    """Puts the text between the page's two comments of this name."""
    before = page.read_text()
    place = rf"(<!-- {re.escape(name)} -->\n).*?(<!-- end of {re.escape(name)} -->)"
    after, found = re.subn(place, lambda match: f"{match[1]}{text}\n{match[2]}", before, flags=re.DOTALL)
    if found != 1:
        raise SystemExit(f"{page} has {found} places for {name!r}, and needs one")
    page.write_text(after)


def arguments(description):
    """The arguments that every report has."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=pathlib.Path)
    parser.add_argument("--page", type=pathlib.Path)
    parser.add_argument("--figure", type=pathlib.Path)
    parser.add_argument("--raw", type=pathlib.Path)
    return parser


def publish(options, tables, draw, runs):
    """Prints the tables, by name, and puts them into the page; has the figure drawn; writes the results of all runs
    into one JSON file: each as far as the arguments name a file for it."""
    for name, text in tables.items():
        print(f"{name}\n\n{text}\n")
        if options.page:
            put(options.page, name, text)
    if options.figure:
        draw(options.figure)
    if options.raw:
        options.raw.write_text(json.dumps(runs, indent=1) + "\n")


def plotting():
    """pyplot, for files alone, which repeat bit for bit."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wtacrs"
    from matplotlib import pyplot

    return pyplot


def save(figure, file):
    figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)
