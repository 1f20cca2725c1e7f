"""Tables in pages of docs/results, and figures without what changes from run to run."""

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


def plotting():
    """pyplot, for files alone, which repeat bit for bit."""
    import matplotlib

    matplotlib.use("Agg")
    matplotlib.rcParams["svg.hashsalt"] = "wtacrs"
    from matplotlib import pyplot

    return pyplot


def save(figure, file):
    figure.savefig(file, dpi=110, metadata={"Date": None} if file.suffix == ".svg" else None)
