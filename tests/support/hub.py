"""A hub on this machine that serves one data set, as far as `datasets` asks; it remembers what was asked."""

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

COMMIT = "a" * 40


@contextmanager
def serve(files: dict[str, bytes]) -> Iterator[tuple[str, list[str]]]:
    """Serve `owner/name` with its files in data/; the address, and the paths asked for so far."""
    asked: list[str] = []

    class Hub(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            path = self.path.split("?")[0]
            asked.append(path)
            file = path.rpartition("/")[2]
            about = {"type": "file", "oid": "b" * 40}
            if path.endswith("/data"):
                self.answer([about | {"size": len(raw), "path": f"data/{f}"} for f, raw in files.items()])
            elif "/tree/" in path:
                self.answer([{"type": "directory", "oid": "c" * 40, "size": 0, "path": "data"}])
            elif path.startswith("/api/datasets/owner/name"):
                self.answer({"id": "owner/name", "sha": COMMIT, "tags": [], "siblings": []})
            elif file in files and "/resolve/" in path:
                self.send(files[file])
            else:
                self.reply(404, b"", {"X-Error-Code": "EntryNotFound"})

        do_HEAD = do_GET

        def answer(self, content: list | dict) -> None:
            self.reply(200, json.dumps(content).encode(), {"Content-Type": "application/json"})

        def send(self, raw: bytes) -> None:
            first, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")
            first, last = int(first), min(int(last or len(raw)), len(raw) - 1)
            head = {
                "Content-Range": f"bytes {first}-{last}/{len(raw)}",
                "X-Repo-Commit": COMMIT,
                "ETag": '"e"',
            }
            self.reply(206, raw[first : last + 1], head)

        def reply(self, code: int, body: bytes, head: dict[str, str]) -> None:
            self.send_response(code)
            for name, value in (head | {"Content-Length": str(len(body))}).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command == "GET":
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Hub)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}", asked
    finally:
        server.shutdown()
        server.server_close()
