"""What is read the same way wherever a deployment of a StreamFlow file is looked at."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

WORK_FOLDER = "/tmp/streamflow"  # noqa: S108 - StreamFlow's own, of a deployment that names none


def wrapped(deployment: Mapping[str, Any]) -> str | None:
    """Return the name of the deployment that this one wraps, in either of the two spellings; None for none."""
    wraps = deployment.get("wraps")
    return str(wraps["deployment"]) if isinstance(wraps, Mapping) else wraps
