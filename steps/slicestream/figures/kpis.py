"""The KPIs of the paper's project, from run records: toppi, totm, ttmip, speed-up, efficiency, bytes, energy.

Each says where it was measured and how. What a run cannot tell has no value and a reason.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from slicestream.figures.course import Link
from slicestream.figures.facts import Record

_TOGETHER = re.compile(r"^(cuda|cpu) \((\d+) × ")


@dataclass(frozen=True, kw_only=True, slots=True)
class Kpis:
    """Seconds; None where the run had no such step.

    Attributes
    ----------
    toppi_s : time of pre-processing images, summed over all preprocess records (work, not wall time)
    toppi_ms_per_item : the same per item that preprocess counted (`toppi_items` of `toppi_unit`)
    totm_s : time of training models, summed over train records
    ttmip_s : time to model in production: from the first preprocess start to the end of training
    ttmip_masks_s : from the first preprocess start to the first end of infer
    """

    toppi_s: float | None
    toppi_ms_per_item: float | None
    toppi_items: int
    toppi_unit: str
    totm_s: float | None
    ttmip_s: float | None
    ttmip_masks_s: float | None


@dataclass(frozen=True, kw_only=True, slots=True)
class Figure:
    """One KPI: `value` in `unit` ("s", "B", "J", "" for a ratio), None where the run cannot tell and `how` says why."""

    name: str
    value: float | None
    unit: str
    where: str
    how: str

    def to_header(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {name: getattr(self, name) for name in self.__slots__}


def kpis(records: Sequence[Record]) -> Kpis:
    """Compute the KPIs of time of one run."""
    preprocess, train, infer = (_of(records, step) for step in ("preprocess", "train", "infer"))
    begin = min((record.start for record in preprocess), default=None)
    toppi_s = sum(record.seconds for record in preprocess) if preprocess else None
    items = sum(record.items for record in preprocess)
    ready = max((record.end for record in train), default=None)
    masks = min((record.end for record in infer), default=None)
    return Kpis(
        toppi_s=toppi_s,
        toppi_ms_per_item=1000 * toppi_s / items if toppi_s is not None and items else None,
        toppi_items=items,
        toppi_unit=preprocess[0].unit if preprocess else "",
        totm_s=sum(record.seconds for record in train) if train else None,
        ttmip_s=(ready - begin).total_seconds() if ready and begin else None,
        ttmip_masks_s=(masks - begin).total_seconds() if masks and begin else None,
    )


def figures(records: Sequence[Record], links: Sequence[Link]) -> list[Figure]:
    """Return every KPI of a run with where and how it was measured."""
    steps = list(dict.fromkeys(record.step for record in records))
    shared = [figure for step in steps for figure in _shared(step, _of(records, step))]
    return [*_times(records), *shared, *_sent(links), *_energy(records)]


def _of(records: Iterable[Record], step: str) -> list[Record]:
    return [record for record in records if record.step == step]


def _where(records: Iterable[Record]) -> str:
    return "; ".join(dict.fromkeys(f"{record.site}: {record.device}" for record in records))


def _times(records: Sequence[Record]) -> list[Figure]:
    values = kpis(records)
    preprocess, train, infer = (_of(records, step) for step in ("preprocess", "train", "infer"))
    work, clocks = "sum of the seconds of {} jobs by their run records", "by the clocks of the machines named"
    begun, masks = preprocess[:1], sorted(infer, key=lambda record: record.end)[:1]
    rows = (
        ("toppi", values.toppi_s, preprocess, work.format(len(preprocess))),
        ("totm", values.totm_s, train, work.format(len(train))),
        ("ttmip", values.ttmip_s, begun + train, f"first preprocess start to end of training, {clocks}"),
        ("to the first masks", values.ttmip_masks_s, begun + masks, f"first preprocess start to first mask, {clocks}"),
    )
    return [
        Figure(name=name, value=value, unit="s", where=_where(measured), how=how)
        for name, value, measured, how in rows
        if value is not None
    ]


def _shared(step: str, records: Sequence[Record]) -> list[Figure]:
    """Return speed-up and efficiency of a step that was divided: T(1) is what its jobs took together."""
    where, found = _where(records), []
    if len(records) > 1:
        span = (max(record.end for record in records) - min(record.start for record in records)).total_seconds()
        hosts = len({record.host for record in records})
        kind = "processes on one host" if hosts == 1 else f"replicas on {hosts} hosts"
        speed_up = sum(record.seconds for record in records) / span if span > 0 else None
        how = f"T(1) / T(n), n = {len(records)} {kind}; T(1): the jobs' own times summed, not run one by one"
        each = None if speed_up is None else speed_up / len(records)
        found += [
            Figure(name=f"{step}: speed-up", value=speed_up, unit="", where=where, how=how),
            Figure(name=f"{step}: efficiency", value=each, unit="", where=where, how="speed-up / n"),
        ]
    for match in filter(None, (_TOGETHER.match(record.device) for record in records)):
        kind = "GPUs" if match[1] == "cuda" else "processes"
        how = f"{match[2]} {kind} shared each batch; one run has no T(1): train once with `--processes 1`"
        found.append(Figure(name=f"{step}: speed-up over {kind}", value=None, unit="", where=where, how=how))
    return found


def _sent(links: Sequence[Link]) -> list[Figure]:
    if not links:
        return [Figure(name="bytes between sites", value=0, unit="B", where="", how="one site: nothing was sent")]
    return [
        Figure(
            name=f"bytes, {link.source} to {link.destination}",
            value=link.bytes,
            unit="B",
            where=f"{link.source}: where the transfers are driven from" if link.source == "laptop" else "laptop",
            how=f"{link.files} files" + (", as the transfers counted them" if link.seconds is not None else ""),
        )
        for link in links
    ]


def _energy(records: Sequence[Record]) -> list[Figure]:
    """Return joules per site, of each host's time once: where jobs overlap, a counter sees all of them."""
    sites: dict[str, list[Record]] = {}
    for record in records:
        if record.energy_j is not None:
            sites.setdefault(record.site, []).append(record)
    if not sites:
        where = ", ".join(dict.fromkeys(record.site for record in records))
        return [Figure(name="energy", value=None, unit="J", where=where, how="no counter")]
    return [
        Figure(
            name=f"energy, {site}",
            value=_once(counted),
            unit="J",
            where=_where(counted),
            how=f"{', '.join(sorted({record.energy_from for record in counted}))}: the whole machine's while "
            f"{', '.join(dict.fromkeys(record.step for record in counted))} ran",
        )
        for site, counted in sites.items()
    ]


def _once(records: Sequence[Record]) -> float:
    """Return the joules of jobs; of one that overlaps another of its host, the share of its time that is left."""
    joules, counted_to = 0.0, dict[str, float]()
    for record in sorted(records, key=lambda record: (record.start, record.end)):
        begin, end = record.start.timestamp(), record.end.timestamp()
        begun = max(begin, counted_to.get(record.host, begin))
        if end > begin and record.energy_j is not None:
            joules += record.energy_j * max(0.0, end - begun) / (end - begin)
        counted_to[record.host] = max(end, begun)
    return joules
