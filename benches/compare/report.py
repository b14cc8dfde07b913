"""Turns the measured figures into Markdown tables and a JSON document."""

import statistics

BESIDE = [
    ("rate", "per second", 1.0, "{:,.0f}"),
    ("peak_rss", "peak RSS, MB", 1e-6, "{:,.1f}"),
    ("rss", "RSS now, MB", 1e-6, "{:,.1f}"),
]


def median(runs, key):
    values = [run[key] for run in runs if key in run]
    return statistics.median(values) if values else None


def ratio(ours, theirs):
    if ours is None or theirs is None or theirs == 0:
        return None
    return ours / theirs


def verdict(figure, ours, theirs):
    """'aim', 'must', 'missed', or '' where there is nothing to judge."""
    value = ratio(ours, theirs) if figure.judge == "ratio" else ours
    if value is None or figure.must is None:
        return ""
    if figure.judge != "ratio":
        value *= figure.scale
    # What is shown is rounded, so what is judged is rounded too.
    value = round(value, 3)
    meets = (lambda bound: value >= bound) if figure.judge == "at_least" else (
        lambda bound: value <= bound)
    if figure.aim is not None and meets(figure.aim):
        return "aim"
    return "must" if meets(figure.must) else "missed"


MARKS = {"aim": "✔✔ aim", "must": "✔ must", "missed": "✘ missed", "": ""}


def number(value):
    if value is None:
        return "-"
    if value == 0:
        return "0"
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.3g}" if abs(value) >= 0.1 else f"{value:.4f}"


def bound(figure, value):
    if value is None:
        return ""
    sign = {"ratio": "x", "at_most": "", "at_least": "at least "}[figure.judge]
    shown = f"{value:g}"
    return shown + sign if figure.judge == "ratio" else sign + shown


def evaluate(results):
    """One entry per figure: medians, ratio and verdict. `results`: [(load, {server: [run]}, errors)]."""
    entries = []
    for load, runs, errors in results:
        for figure in load.figures:
            values = {name: median(runs[name], figure.key) for name in runs}
            ours, theirs = values.get(load.measured), values.get(load.reference)
            entries.append({
                "group": load.group, "load": load.name, "figure": figure, "values": values,
                "ratio": ratio(ours, theirs), "verdict": verdict(figure, ours, theirs),
                "errors": errors,
            })
    return entries


def table(header, rows):
    lines = ["| " + " | ".join(header) + " |", "|" + "---|" * len(header)]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines)


def markdown(results, about):
    parts = ["# Side by side", about]
    entries = evaluate(results)
    for group in dict.fromkeys(entry["group"] for entry in entries):
        parts.append(f"## {group}")
        here = [(load, runs) for load, runs, _ in results if load.group == group]
        names = list(dict.fromkeys(name for _, runs in here for name in runs))
        divided = f"{here[0][0].measured}/{here[0][0].reference}"
        header = ["", "unit", *names, divided, "must", "aim", ""]
        rows = []
        for entry in (e for e in entries if e["group"] == group):
            figure = entry["figure"]
            shown = [None if v is None else v * figure.scale
                     for v in (entry["values"].get(name) for name in names)]
            failed = entry["errors"] and None in shown
            rows.append([
                figure.title, figure.unit, *map(number, shown), number(entry["ratio"]),
                bound(figure, figure.must), bound(figure, figure.aim),
                "failed" if failed else MARKS[entry["verdict"]],
            ])
        parts.append(table(header, rows))
        beside = [row for load, runs in here for row in beside_rows(load, runs, names)]
        if beside:
            parts.append("Rates and memory of the same runs:")
            parts.append(table(["", "", *names, divided], beside))
    errors = [f"- {load.name}: {text}" for load, _, errors in results for text in errors]
    if errors:
        parts.append("## What failed\n\n" + "\n".join(errors))
    counted = [entry["verdict"] for entry in entries if entry["verdict"]]
    parts.append(f"{len(counted)} figures with a budget: {counted.count('aim')} meet the aim, "
                 f"{counted.count('must')} what they must, {counted.count('missed')} miss it.")
    return "\n\n".join(parts) + "\n"


def beside_rows(load, runs, names):
    for key, title, scale, form in BESIDE:
        values = [median(runs.get(name, []), key) for name in names]
        if all(value is None for value in values):
            continue
        by_name = dict(zip(names, values))
        both = ratio(by_name.get(load.measured), by_name.get(load.reference))
        shown = ["-" if value is None else form.format(value * scale) for value in values]
        yield [load.name, title, *shown, number(both)]


def document(results, about):
    """Everything, each single run too."""
    figures = []
    for entry in evaluate(results):
        figure = entry.pop("figure")
        entry.update(title=figure.title, key=figure.key, unit=figure.unit, scale=figure.scale,
                     judge=figure.judge, must=figure.must, aim=figure.aim)
        figures.append(entry)
    loads = [{"name": load.name, "args": load.args, "runs": runs, "errors": errors}
             for load, runs, errors in results]
    return {"about": about, "figures": figures, "loads": loads}
