"""What every contender imports, in our environment and in the peers': times the work and tells `harness.measure`."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any


@contextmanager
def timed(items: float) -> Iterator[None]:
    """Time the block, which works through `items`."""
    begin = time.perf_counter()
    yield
    tell(time.perf_counter() - begin, items)


def tell(seconds: float, items: float, **facts: Any) -> None:
    """Say how long the work took, and `facts` of its result; to a person where no harness listens."""
    text = json.dumps({"seconds": seconds, "items": items, "facts": facts})
    answer = os.environ.get("MEASURED")
    if answer:
        Path(answer).write_text(text)
    else:
        print(text)
