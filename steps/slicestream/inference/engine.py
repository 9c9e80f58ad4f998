"""The engine: OpenVINO on the CPU, the only module that imports it. Why: docs/decisions/0014-openvino.md."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

# OpenVINO imports its model converter where it is there, which we do not use and which brings code that reports usage.
sys.modules.setdefault("openvino.tools.ovc", None)  # type: ignore[arg-type]

import openvino  # noqa: E402
from openvino.frontend import FrontEndManager  # noqa: E402

Image = NDArray[np.float32]

VERSION = str(openvino.__version__).split("-", 1)[0]
PRECISIONS = ("auto", "float32")


class EngineError(RuntimeError):
    """The engine fails on an image; the message has its shape and why."""


def read_graph(path: Path) -> Any:
    """Return the graph of an ONNX file; only the reader of ONNX sees it. Raises what the engine raises."""
    reader = FrontEndManager().load_by_framework("onnx")
    return reader.convert(reader.load(path))


def metadata_of(graph: Any) -> dict[str, str]:
    """Return the file's own metadata."""
    return dict(graph.get_rt_info(["framework"]).value) if graph.has_rt_info(["framework"]) else {}


def shown(port: Any) -> str:
    """Return a port as `name type [sizes]`, a free size as ?."""
    shape = port.partial_shape
    sizes = ["?" if size.is_dynamic else str(size) for size in shape] if shape.rank.is_static else ["..."]
    return f"{port.any_name} {port.element_type.get_type_name()} [{','.join(sizes)}]"


def part_of(graph: Any, given: str, asked: str) -> Any:
    """Return the part of a graph from the input `given` to the output `asked`. Raises what the engine raises."""
    return openvino.Model([graph.output(asked).get_node()], [graph.input(given).get_node()], asked)


class Network:
    """A graph of one input and one output, ready to run.

    Attributes
    ----------
    precision : "bfloat16" or "float32", what it computes in
    """

    def __init__(self, graph: Any, *, threads: int, at_once: int, precision: str) -> None:
        """Compile for so many images at once, which share the threads; `precision` is one of `PRECISIONS`.

        "auto" is bfloat16 where the CPU has instructions for it (the engine's own choice there), else float32.
        Raises what the engine raises.
        """
        core = openvino.Core()
        own = core.get_property("CPU", "INFERENCE_PRECISION_HINT")
        fast = precision == "auto" and own == openvino.Type.bf16
        streams = min(at_once, threads)
        settings = {
            "INFERENCE_PRECISION_HINT": "bf16" if fast else "f32",
            "INFERENCE_NUM_THREADS": threads,
            "NUM_STREAMS": streams,
            "ENABLE_CPU_PINNING": False,  # two processes would share a core while others are idle
        }
        self._compiled = core.compile_model(graph, "CPU", settings)
        self._requests = streams + 1  # one waits, so that none idles while an answer is taken
        self.precision = "bfloat16" if fast else "float32"

    def answers(self, images: Iterable[Image]) -> Iterator[tuple[Image, Image]]:
        """Yield each image with its answer, in order. It is computed by itself: no answer hangs on another image.

        Raises EngineError.
        """
        idle = [self._compiled.create_infer_request() for _ in range(self._requests)]
        running: deque[tuple[Any, Image]] = deque()
        for image in images:
            if not idle:
                request, earlier = running.popleft()
                yield earlier, _answer(request, earlier)
                idle.append(request)
            with _told(image):
                idle[-1].start_async({0: image})
            running.append((idle.pop(), image))
        for request, image in running:
            yield image, _answer(request, image)


def reason(error: Exception) -> str:
    """Return the one line of the engine's message that says why; those before it say where in its sources."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return (lines or [type(error).__name__])[-1][:200]


def _answer(request: Any, image: Image) -> Image:
    with _told(image):
        request.wait()
        answer = np.array(request.get_output_tensor().data, np.float32)
        if not np.isfinite(answer).all():
            raise ValueError("the answer is not finite")
    return answer


@contextmanager
def _told(image: Image) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the engine's own exception types share no base
        raise EngineError(f"an input of shape {image.shape} ({reason(error)})") from error
