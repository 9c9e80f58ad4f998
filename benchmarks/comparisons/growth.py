"""Time and memory of every step but training over the number of patients, phantoms of a small matrix."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path

from harness import CONTENDERS, Comparison, Contender, grows
from inputs import once, phantom_cohort, step, trained_model

MATRIX = 64
PATIENTS = {"trial": (1, 4), "bench": (1, 10, 100), "full": (1, 10, 100, 1000)}
WIDTH, EPOCHS = 8, 40  # of the model that infer is given
STEPS = ("preprocess", "infer", "evaluate", "export", "report", "split")
DIVISIBLE = 4  # patients from which a cohort can be divided
Words = dict[str, list[str | Path]]


def comparisons(size: str, inputs: Path) -> list[Comparison]:
    """Return one per step."""
    model = trained_model(inputs, 128, WIDTH, EPOCHS) / "model.onnx"
    made = {patients: _made(inputs, patients, model) for patients in PATIENTS[size]}
    by_step = {name: {count: words[name] for count, words in made.items() if name in words} for name in STEPS}
    return [_comparison(name, words) for name, words in by_step.items() if len(words) > 1]


def _made(inputs: Path, patients: int, model: Path) -> Words:
    """Run the chain once, for the steps to read from; return each step's words."""
    cohort = phantom_cohort(inputs, patients, MATRIX)
    folder = inputs / f"grown-{patients}"
    once(folder, lambda out: _chain(out, cohort, model, patients))
    return _words(folder, cohort, model, patients)


def _chain(out: Path, cohort: Path, model: Path, patients: int) -> None:
    for name, words in _words(out, cohort, model, patients).items():
        step(name, *_unpacked(words), "--out", out / name)
        for kind in ("volume", "mask", "reference", "identity", "run.json"):
            (out / f"{kind}.list").write_text("\n".join(map(str, sorted(out.glob(f"*/*.{kind}")))))
    final = str(out.with_name(out.name.removeprefix(".")))
    for listed in out.glob("*.list"):  # the folder gets its name when all of it is there
        listed.write_text(listed.read_text().replace(str(out), final))


def _unpacked(words: Iterable[str | Path]) -> list[str]:
    """Return the words, in place of a list the paths in it."""
    texts = map(str, words)
    return [w for text in texts for w in (Path(text[1:]).read_text().split() if text[0] == "@" else [text])]


def _words(out: Path, cohort: Path, model: Path, patients: int) -> Words:
    volumes, masks, references, identities, records = (
        f"@{out / kind}.list" for kind in ("volume", "mask", "reference", "identity", "run.json")
    )
    export = out / "export"
    slices, index = out / "preprocess/training-1of1.slices", out / "preprocess/series-1of1.json"
    words: Words = {
        "preprocess": ["--cohort", cohort, "--pseudonym-key", cohort / "pseudonym_key"],
        "infer": ["--model", model, "--volumes", volumes],
        "evaluate": ["--masks", masks, "--references", references],
        "export": ["--masks", masks, "--volumes", volumes, "--references", references, "--identities", identities],
        "report": ["--nodules", export / "nodules.csv", "--overlays", export / "overlays", "--records", records],
    }
    if patients >= DIVISIBLE:
        words["split"] = ["--slices", slices, "--indexes", index, "--fractions", "0.8", "0.1", "0.1"]
    return words


def _comparison(name: str, words: dict[int, list[str | Path]]) -> Comparison:
    contenders = [
        Contender(
            name=f"{count} patients",
            command=[sys.executable, CONTENDERS / "our_step.py", str(count), name, *flags, "--out", "{work}"],
            libraries=("slicestream",),
        )
        for count, flags in words.items()
    ]
    names = [contender.name for contender in contenders]
    counts = list(words)
    title, whole = f"growth, {name}", f"{counts[0]} to {counts[-1]} patients"
    claims = [
        grows(f"{title}: time, {whole}", names, 1.05, of="seconds"),
        grows(f"{title}: memory, {whole}", names, 0.05, of="peak_mb"),
    ]
    if len(names) > 2:  # what a step does once flattens the beginning
        last = f"{counts[-2]} to {counts[-1]} patients"
        claims.insert(1, grows(f"{title}: time, {last}", names[-2:], 1.05, of="seconds"))
    return Comparison(
        name=f"growth-{name}",
        how=f"slicestream {name} on {', '.join(map(str, counts))} phantom patients of {MATRIX} × {MATRIX}, in one "
        "process; imports are not timed. The ratio is the exponent fitted to the logarithms; memory is the peak of the "
        "largest process.",
        unit="patients/s",
        contenders=contenders,
        claims=claims,
    )
