"""What stands between us and an archive: a relay that cuts, stalls and counts; and a false archive that misbehaves."""

from __future__ import annotations

import select
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


@dataclass
class Relay:
    """Passes bytes on to a port. `cut_after` bytes of a direction it closes both ends, once."""

    to: int
    cut_after: int = 0
    upwards: bool = True  # counts what the client sends, else what the archive answers
    stall: bool = False  # pass nothing on any more, instead of closing
    pause_s: float = 0  # after each piece of up to 16 kB
    on_cut: Callable[[], object] = lambda: None
    passed: list[int] = field(default_factory=list)  # bytes upwards, by connection
    cuts: int = 0
    port: int = 0
    threads: list[threading.Thread] = field(default_factory=list)
    over: threading.Event = field(default_factory=threading.Event)

    def serve(self, listener: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = listener.accept()
                self.threads.append(threading.Thread(target=self._join, args=(client,), daemon=True))
                self.threads[-1].start()

    def _join(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self.to)) as archive:
            index = len(self.passed)
            self.passed.append(0)
            back = threading.Thread(target=self._pump, args=(archive, client, index, False), daemon=True)
            back.start()
            self._pump(client, archive, index, True)
            back.join()

    def _pump(self, source: socket.socket, sink: socket.socket, index: int, upwards: bool) -> None:
        seen = 0
        with suppress(OSError):
            while data := source.recv(16384):
                seen += len(data)
                if self.pause_s:
                    self.over.wait(self.pause_s)
                if upwards:
                    self.passed[index] += len(data)
                if self.cut_after and not self.cuts and upwards == self.upwards and seen > self.cut_after:
                    self.cuts += 1
                    if self.stall:
                        self.over.wait(20)
                        break
                    self.on_cut()
                    break
                sink.sendall(data)
        for one in (source, sink):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


@contextmanager
def relay(to: int, **settings: object) -> Iterator[Relay]:
    between = Relay(to, **settings)  # type: ignore[arg-type]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        between.port = listener.getsockname()[1]
        threading.Thread(target=between.serve, args=(listener,), daemon=True).start()
        try:
            yield between
        finally:
            between.over.set()
            listener.shutdown(socket.SHUT_RDWR)
            for thread in between.threads:
                thread.join(5)


@dataclass
class FalseArchive:
    """Answers each request by `answer(method, path)`: status, headers, content."""

    answer: Callable[[str, str], tuple[int, dict[str, str], bytes]]
    requests: list[tuple[str, str, dict[str, str]]] = field(default_factory=list)
    url: str = ""


@contextmanager
def false_archive(answer: Callable[[str, str], tuple[int, dict[str, str], bytes]]) -> Iterator[FalseArchive]:
    archive = FalseArchive(answer)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            archive.requests.append((self.command, self.path, dict(self.headers)))
            status, headers, content = archive.answer(self.command, self.path)
            self.send_response(status)
            for name, value in {"Content-Length": str(len(content)), "Connection": "close", **headers}.items():
                self.send_header(name, value)
            self.end_headers()
            with suppress(OSError):
                self.wfile.write(content)
            self.close_connection = True

        def do_POST(self) -> None:
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    archive.url = f"http://127.0.0.1:{server.server_port}/dicom-web"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield archive
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@contextmanager
def tls_before(to: int, context: ssl.SSLContext) -> Iterator[int]:
    """Stand as a reverse proxy before a port: TLS outside, plain inside. Yield the port that it listens on."""
    listener = socket.create_server(("127.0.0.1", 0))

    def join(client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", to)) as archive:
            outside = context.wrap_socket(client, server_side=True)
            with outside:
                while True:  # in one thread: an SSLSocket is not for two
                    ready = [outside] if outside.pending() else select.select([outside, archive], [], [])[0]
                    for one in ready:
                        data = one.recv(65536)
                        if not data:
                            return
                        (archive if one is outside else outside).sendall(data)

    def serve() -> None:
        with suppress(OSError):
            while True:
                threading.Thread(target=join, args=(listener.accept()[0],), daemon=True).start()

    threading.Thread(target=serve, daemon=True).start()
    with listener:
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
