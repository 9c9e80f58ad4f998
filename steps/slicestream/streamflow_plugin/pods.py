"""What the state of pods means, read from the API's own fields. Nothing here talks to a cluster."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

# States in which a container stays until somebody acts. ErrImagePull may yet pass, ImagePullBackOff is its second time.
STUCK = {
    "ErrImageNeverPull": "the image is not on the node and may not be pulled; load it, or change imagePullPolicy",
    "ImagePullBackOff": "the image cannot be pulled; check its name, and the registry's access",
    "InvalidImageName": "correct `image` in the manifest",
    "CreateContainerConfigError": "check the manifest's config maps, secrets and securityContext",
    "CreateContainerError": "check the manifest's command and mounts",
    "RunContainerError": "check the manifest's command and mounts",
    "CrashLoopBackOff": "the container ends at once; check the manifest's command and the image",
}


def ready(pod: Any) -> bool:
    """Whether a pod can take work."""
    conditions = {one.type: one.status for one in pod.status.conditions or []}
    return pod.metadata.deletion_timestamp is None and conditions.get("Ready") == "True"


def stuck(pod: Any) -> str | None:
    """Return the one line about a pod that will not start without help; None for any other."""
    for status in [*(pod.status.init_container_statuses or []), *(pod.status.container_statuses or [])]:
        waiting = status.state.waiting if status.state else None
        if waiting and waiting.reason in STUCK:
            said = " ".join((waiting.message or "").split())
            image = f"image {status.image}: " if "Image" in waiting.reason else ""
            who = f"pod {pod.metadata.name}, container {status.name}"
            return f"{who}: {image}{waiting.reason}: {said}; {STUCK[waiting.reason]}"
    return None


def unready(pod: Any) -> str:
    """Return why a pod is not ready yet."""
    for one in pod.status.conditions or []:
        if one.type == "PodScheduled" and one.status != "True":
            return f"pod {pod.metadata.name}: {one.reason}: {' '.join((one.message or '').split())}"
    for status in pod.status.container_statuses or []:
        if status.state and status.state.waiting:
            said = " ".join((status.state.waiting.message or "").split())
            return f"pod {pod.metadata.name}: {status.state.waiting.reason} {said}".strip()
    return f"pod {pod.metadata.name}: {pod.status.phase}, not ready"


def message(error: Any) -> str:
    """Return in one line what an API server answered to a request that it did not grant."""
    text = str(getattr(error, "body", None) or error.reason)
    with suppress(ValueError, KeyError, TypeError):  # not every answer is a Status
        text = str(json.loads(text)["message"])
    return " ".join(text.split())[:400]


def parse_status(text: str) -> tuple[int, str] | None:
    """Return exit code and message from an exec's status; None if the connection ended without one."""
    if not text:
        return None
    status: dict[str, Any] = json.loads(text)
    if status.get("status") == "Success":
        return 0, ""
    causes = (status.get("details") or {}).get("causes") or []
    codes = [cause["message"] for cause in causes if cause.get("reason") == "ExitCode"]
    return (int(codes[0]) if codes else -1), str(status.get("message", "no reason given"))
