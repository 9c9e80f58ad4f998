"""The KPIs of the paper's project, from run records: toppi, totm, ttmip."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from slicestream.figures.facts import Record


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


def kpis(records: Sequence[Record]) -> Kpis:
    """Compute the KPIs of one run."""
    preprocess, train, infer = (
        [record for record in records if record.step == step] for step in ("preprocess", "train", "infer")
    )
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
