"""Results as a table of claims, a list of what was measured how, and a plot."""

from __future__ import annotations

import re
from collections.abc import Mapping
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

    value, low, high = (f"{claim[part]:.2f}" for part in ("value", "low", "high"))
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
        lines.append(f"- **{name}**: {result['how']} {len(result['rounds'])} rounds. {listed}.")
    machines = sorted({_machine(result["machine"]) for result in results.values() if "machine" in result})
    return "\n".join([*lines, "", *(f"Machine: {text}." for text in machines)])


def _machine(facts: Mapping[str, Any]) -> str:
    flags = ", ".join(facts["flags"])
    cores = f"{facts['cores']} cores of {facts['processor']} (family/model {facts['family']}; {flags})"
    return f"{cores}, {facts['memory_gib']} GiB, {facts['system']}"


def write_page(page: Path, results: Results) -> None:
    """Replace what stands between the page's two markers, and the plot beside the page."""
    text = page.read_text(encoding="utf-8")
    assert re.search(f"{BEGIN}.*{END}", text, flags=re.S), f"{page}: no markers"
    plot(page.with_suffix(".svg"), results)
    made = f"{BEGIN}\n\n{table(results)}\n\n![Ratios to the goal]({page.stem}.svg)\n\n{methods(results)}\n\n{END}"
    text = re.sub(f"{BEGIN}.*?{END}", lambda _: made, text, flags=re.S)
    page.write_text(text, encoding="utf-8")


def plot(path: Path, results: Results) -> None:
    """Draw each claim's ratio over its goal: right of 1 it holds. The bar is the 5 to 95 % range."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "slicestream"  # the same figures, the same file
    from matplotlib import pyplot as plt

    claims = [claim for result in results.values() for claim in result.get("claims", ())]
    figure, axes = plt.subplots(figsize=(8, 0.7 + 0.3 * len(claims)), layout="constrained")
    for row, claim in enumerate(reversed(claims)):
        shares = [claim[part] / claim["goal"] for part in ("low", "value", "high")]
        if claim["at_most"]:
            shares = [1 / share if share > 0 else float("inf") for share in reversed(shares)]
        colour = "tab:green" if claim["holds"] else "tab:red"
        axes.plot([shares[0], shares[2]], [row, row], color=colour, linewidth=3, solid_capstyle="butt")
        axes.plot(shares[1], row, "o", color=colour)
    axes.axvline(1, color="black", linewidth=1)
    axes.set_yticks(range(len(claims)), [f"{c['what']} / {c['peer']}".rstrip(" /") for c in reversed(claims)])
    axes.set_xscale("log")
    axes.set_xlabel("ratio over its goal (right of 1 it holds)")
    figure.savefig(path, metadata={"Date": None, "Creator": None})
    plt.close(figure)
