"""`troop view [RUN|DIR]`: the pages of `troop report --html` for all runs, from a server for this machine alone."""

import argparse
import contextlib
import os
import sys
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, unquote, urlsplit

from agent.commands.options import fill_in
from agent.commands.report_command import evaluation_report
from agent.commands.runs_command import figures
from agent.run_files import SIGNS, kept_in, last_worked_on, overview
from agent.secrets import mask
from harness import trace
from harness.scaling.imported import of_evaluation
from harness.scaling.study import study
from harness.suites.page import evaluation_page
from harness.views.page import filled, run_page
from tasks.errors import Explained, InputError

HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Content-Security-Policy": "frame-ancestors 'none'",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "no-referrer",
}
KEPT = 16
"""Pages that are kept, so that one that did not change is not made again."""


def execute(known: argparse.Namespace) -> int:
    """Serve until Ctrl-C."""
    fill_in(known, ["out"])
    if not known.out.is_dir():
        raise InputError(f"there is no directory {known.out}")
    with Explained(f"cannot serve on port {known.port}", OSError, OverflowError):
        server = PageServer(known.out, known.port)
    with server:
        sys.stderr.write(f"{known.out} is at http://127.0.0.1:{server.server_port}/ until Ctrl-C\n")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            sys.stderr.write("\n")
    return 0


class PageServer(ThreadingHTTPServer):
    """Serves the pages of what is in `root`, or of the one run or evaluation that it is. It writes nothing."""

    daemon_threads = True

    def __init__(self, root: Path, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), _Handler)
        self.root = root.resolve()
        self.names = {f"{name}:{self.server_port}" for name in ("127.0.0.1", "localhost")}
        self._pages: dict[str, tuple[str, bytes]] = {}
        self._making = threading.Lock()

    def page(self, path: str, query: str) -> tuple[str, bytes] | None:
        """(a tag that changes with it, the page) at a path; None where there is none. Raises InputError where what it
        shows is damaged."""
        place = Path(os.path.realpath(self.root / unquote(path.replace("%00", "")).strip("/")))
        only = next((int(each) for each in parse_qs(query).get("attempt", ()) if each.isdecimal()), None)
        if not place.is_relative_to(self.root) or not (place == self.root or last_worked_on(place)):
            return None
        lists = not any((place / file).exists() for file in ("trace.jsonl", "report.json"))
        watched = [file for each in (kept_in(place) if lists else [place]) for file in map(each.joinpath, SIGNS)]
        states = [(str(file), file.stat().st_mtime_ns, file.stat().st_size) for file in watched if file.exists()]
        tag, address = f'"{hash(tuple(states)):x}"', f"{place}?{only}"
        with self._making:
            if self._pages.get(address, ("",))[0] != tag:
                self._pages = dict(list(self._pages.items())[-KEPT:])
                self._pages[address] = (tag, (self._list(place) if lists else self._made(place, only)).encode())
            return self._pages[address]

    def _address(self, place: Path) -> str:
        return quote(f"/{place.relative_to(self.root)}".removesuffix("/."))

    def _list(self, place: Path) -> str:
        rows = [(overview(each), self._address(each)) for each in kept_in(place)]
        told = [(row, address, figures(row)) for row, address in rows]
        return filled("index.html", live=True, title="Runs", place=str(place), runs=told)

    def _made(self, place: Path, only: int | None) -> str:
        more: dict[str, Any] = {"live": True, "home": "/" if place != self.root else ""}
        report = evaluation_report(place)
        if report is None:
            back = (self._address(place) or "/") if only is not None else ""
            events = list(trace.read(place / "trace.jsonl"))
            return run_page(events, only=only, whole="?attempt={}", back=back, **more)
        kept = [place / task["id"] for task in report["tasks"]]
        links = {f"{place.name}/{each.name}": self._address(each) for each in kept if (each / "trace.jsonl").exists()}
        of_all = None
        with contextlib.suppress(InputError):  # of what is not graded there is none
            of_all = study(of_evaluation(report).models)
        return evaluation_page([(place.name, report)], of_all, links, **more)


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "troop", ""

    def do_GET(self) -> None:
        # A page of another site may make its own name mean this machine, but it cannot send another one.
        if self.headers.get("Host") not in self.server.names:
            return self.send_error(HTTPStatus.FORBIDDEN, explain="this server is for 127.0.0.1 alone")
        asked = urlsplit(self.path)
        try:
            found = self.server.page(asked.path, asked.query)
        except (InputError, OSError, LookupError, TypeError, ValueError) as error:
            return self.send_error(HTTPStatus.INTERNAL_SERVER_ERROR, explain=mask(f"this is damaged: {error}"))
        if found is None:
            return self.send_error(HTTPStatus.NOT_FOUND)
        tag, page = found
        same = self.headers.get("If-None-Match") == tag
        self.send_response(HTTPStatus.NOT_MODIFIED if same else HTTPStatus.OK)
        self.send_header("ETag", tag)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(0 if same else len(page)))
        self.end_headers()
        if self.command == "GET" and not same:
            self.wfile.write(page)

    do_HEAD = do_GET

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def log_message(self, format: str, *args: object) -> None:
        """Nobody reads along."""
