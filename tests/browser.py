"""A headless Chromium with WebGL, by a processor alone, and the viewer's folder of a few small series."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright

import made
from output_cases import program
from slicestream.volumes.geometry import Geometry
from slicestream.volumes.mask import write_mask
from slicestream.volumes.volume import Volume, write_volume

WEBGL = ("--use-angle=swiftshader", "--enable-unsafe-swiftshader", "--ignore-gpu-blocklist", "--no-sandbox")
READY_MS = 30_000


@contextmanager
def chromium() -> Iterator[Browser]:
    """Yield Debian's Chromium; skip where there is none, but fail in CI."""
    path = program("chromium", "chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=list(WEBGL))
        yield browser
        browser.close()


class Shown:
    """A page of the viewer, and what it said and asked for."""

    def __init__(self, browser: Browser, folder: Path, fragment: str = "", **options: Any) -> None:
        options = {"viewport": {"width": 800, "height": 480}, "offline": True, **options}
        self.page: Page = browser.new_context(**options).new_page()
        self.page.set_default_timeout(READY_MS)
        self.errors: list[str] = []
        self.asked: list[str] = []
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("console", lambda message: message.type == "error" and self.errors.append(message.text))
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.goto(f"{(folder / 'index.html').as_uri()}{fragment}", wait_until="commit")

    def wait(self, series: str = "") -> Shown:
        """Wait until a series is shown."""
        self.page.wait_for_selector(f'body[data-series="{series}"]' if series else "body[data-series]")
        return self

    def run(self, script: str) -> Any:
        """Return what a JavaScript expression gives."""
        return self.page.evaluate(script)

    def press(self, *keys: str) -> None:
        """Press keys, one after the other."""
        for key in keys:
            self.page.keyboard.press(key)

    def place(self) -> list[int]:
        """Return index (slice, row, column) in the scan of the crosshair."""
        return [int(n) for n in self.run("scanned(voxel())")]

    def mm_ras(self) -> list[float]:
        """Return the crosshair's place as NiiVue says it: mm, RAS, from the first voxel."""
        return [float(n) for n in self.run("[...viewer.frac2mm(viewer.scene.crosshairPos)].slice(0, 3)")]

    def pixels(self) -> np.ndarray:
        """Return what the canvas shows, RGB (row, column, 3), without the crosshair."""
        self.run("viewer.setCrosshairWidth(0)")
        self.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(done)))")
        picture = Image.open(io.BytesIO(self.page.locator("#gl").screenshot())).convert("RGB")
        return np.asarray(picture).astype(int)


def coloured(pixels: np.ndarray, colour: tuple[int, int, int], apart: int = 6) -> int:
    """Return how many pixels have a colour, each channel but for `apart`."""
    return int((np.abs(pixels - np.array(colour)) <= apart).all(axis=2).sum())


def write_series(folder: Path, hu: np.ndarray, predicted: np.ndarray, drawn: np.ndarray | None, **more: Any) -> str:
    """Write volume, mask and, where there is one, reference of a series; return its id. `more`: patient, geometry."""
    geometry = more.get("geometry", Geometry(shape=hu.shape, spacing_mm=(2.0, 1.0, 1.0)))
    series = made.series_id(more.get("patient", 1))
    content_hash = write_volume(folder / f"{series}.volume", Volume(id=series, hu=hu, geometry=geometry))
    of = {"patient": more.get("patient", 1), "volume_hash": content_hash}
    for kind, labels in (("mask", predicted), ("reference", drawn)):
        if labels is not None:
            one = made.mask(labels, **of) if kind == "mask" else made.reference(labels, **of)
            write_mask(folder / f"{series}.{kind}", replace(one, geometry=geometry))
    return str(series)
