"""Results as a table of claims, a list of what was measured how, and a plot."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from harness import shown

Results = Mapping[str, Any]
BEGIN, END = "<!-- measured: written by make bench -->", "<!-- end of what was measured -->"
BUSY = 0.05  # others' share of the machine's CPU time from which a row says that the machine was not quiet
HEADS = ("what", "ours", "against", "peer", "ratio", "5 to 95 %", "goal", "holds")


def table(results: Results) -> str:
    """Return a Markdown table: a row per claim, and one per comparison that was not measured."""
    rows = [HEADS, ("---",) * len(HEADS)]
    for name, result in results.items():
        if "missing" in result:
            rows.append((name, "", "", "", "", "", "", f"not measured: {result['missing']}"))
        else:
            rows += [_row(claim, result) for claim in result["claims"]]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def _row(claim: Mapping[str, Any], result: Results) -> tuple[str, ...]:
    def figure(name: str) -> str:
        if not name or not claim["figure"]:
            return ""
        value = result["contenders"][name][claim["figure"]]
        return shown(value, result["unit"]) if claim["figure"] == "speed" else f"{value:.0f} MB"

    value, low, high = (f"{claim[part]:z.2f}" for part in ("value", "low", "high"))
    goal = f"{'≤' if claim['at_most'] else '≥'} {claim['goal']:g}"
    holds = "yes" if claim["holds"] else "**no**"
    busy = max(part["others"] for part in result["contenders"].values())
    if busy > BUSY:
        holds += f" (others took {busy:.0%} of the CPU)"
    return (
        claim["what"],
        figure(claim["ours"]),
        claim["peer"],
        figure(claim["peer"]),
        value,
        f"{low} to {high}",
        goal,
        holds,
    )


def methods(results: Results) -> str:
    """Return a Markdown list: what was measured how, how often, with which versions, on what machine."""
    lines = []
    for name, result in results.items():
        if "missing" in result:
            continue
        versions = {k: v for part in result["contenders"].values() for k, v in part["versions"].items()}
        listed = ", ".join(f"{library} {number}" for library, number in sorted(versions.items()))
        lines.append(f"- **{name}**: {result['how']} {len(result['rounds'])} rounds; {listed}.")
    machines = sorted({one_machine(result["machine"]) for result in results.values() if "machine" in result})
    return "\n".join([*lines, "", *(f"Machine: {text}." for text in machines)])


def one_machine(facts: Mapping[str, Any]) -> str:
    """Return a machine in words."""
    flags = ", ".join(facts["flags"])
    cores = f"{facts['cores']} cores of {facts['processor']} (family/model {facts['family']}; {flags})"
    return f"{cores}, {facts['memory_gib']} GiB, {facts['system']}"


def write_page(page: Path, results: Results) -> None:
    """Replace what stands between the page's two markers, and the plot beside the page."""
    replace(page, BEGIN, f"{table(results)}\n\n![Ratios to the goal]({page.stem}.svg)\n\n{methods(results)}")
    plot(page.with_suffix(".svg"), results)


def replace(page: Path, begin: str, text: str) -> None:
    """Put `text` between the page's line `begin` and the next line `END`."""
    old = page.read_text(encoding="utf-8")
    new, places = re.subn(f"{begin}.*?{END}", lambda _: f"{begin}\n\n{text}\n\n{END}", old, flags=re.S)
    assert places == 1, f"{page}: {places} places between {begin} and {END}; need one"
    page.write_text(new, encoding="utf-8")


def plot(path: Path, results: Results) -> None:
    """Draw each claim's ratio over its goal, the bar its 5 to 95 % range; and the growth of every step, if measured."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "slicestream"  # the same figures, the same file
    from matplotlib import pyplot as plt

    grown = {
        name.removeprefix("growth-"): one
        for name, one in results.items()
        if name.startswith("growth-") and "contenders" in one
    }
    claims = [c for name, one in results.items() if not name.startswith("growth-") for c in one.get("claims", ())]
    high = max(3.0, 0.7 + 0.3 * len(claims))
    figure, panels = plt.subplots(1, 3 if grown else 1, figsize=(15 if grown else 8, high), squeeze=False)
    _ratios(panels[0, 0], claims)
    for axes, of, title in zip(panels[0, 1:], ("seconds", "peak_mb"), ("time, s", "peak memory, MB"), strict=False):
        for step, one in grown.items():
            points = sorted((part["items"], part[of]) for part in one["contenders"].values())
            axes.loglog(*zip(*points, strict=True), "o-", label=step)
        axes.set(xlabel="patients", title=title)
        axes.legend()
    figure.set_layout_engine("constrained")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)


def _ratios(axes: Any, claims: Sequence[Mapping[str, Any]]) -> None:
    """Draw a row per claim, the first on top; where less is better, the goal over the ratio."""
    for row, claim in enumerate(reversed(claims)):
        shares = [claim[part] / claim["goal"] for part in ("low", "value", "high")]
        if claim["at_most"]:
            shares = [1 / share for share in reversed(shares)]
        colour = "tab:blue" if claim["holds"] else "tab:red"
        axes.plot([shares[0], shares[2]], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(shares[1], row, "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(claims)), [f"{c['what']} / {c['peer']}".rstrip(" /") for c in reversed(claims)])
    axes.set_xscale("log")
    axes.set_title("ratio over its goal: right of 1 it holds")
