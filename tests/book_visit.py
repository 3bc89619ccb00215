"""A page of the built book in a real browser, with the network cut."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import unquote, urlparse

WIDE, PHONE = {"width": 1280, "height": 900}, {"width": 390, "height": 844}


class Visit:
    """One page opened with the network cut, and everything that went wrong while it opened."""

    def __init__(
        self,
        browser,
        html: Path,
        name: str,
        *,
        viewport=WIDE,
        scheme="light",
        touch=False,
        javascript=True,
    ):
        self.context = browser.new_context(
            offline=True,
            viewport=viewport,
            color_scheme=scheme,
            reduced_motion="reduce",
            has_touch=touch,
            java_script_enabled=javascript,
        )
        self.page = self.context.new_page()
        self.faults: list[str] = []
        self.files: set[Path] = set()
        self.page.on("console", self._on_console)
        self.page.on("pageerror", lambda error: self.faults.append(f"error: {error}"))
        self.page.on("requestfailed", lambda request: self.faults.append(f"failed: {request.url}"))
        self.page.on("request", self._on_request)
        self.page.goto(f"{html.as_uri()}/{name}", timeout=120_000)
        if not javascript:
            return
        self.page.wait_for_function(
            "!window.MathJax || (MathJax.startup && MathJax.startup.promise)", timeout=60_000
        )
        # The page sets window.MathJax before the script that starts it has run.
        self.page.evaluate("window.MathJax?.startup?.promise")

    def __enter__(self) -> Visit:
        return self

    def __exit__(self, *_) -> None:
        self.context.close()

    def _on_console(self, message) -> None:
        if message.type in ("error", "warning"):
            self.faults.append(f"console: {message.text}")

    def _on_request(self, request) -> None:
        url = urlparse(request.url)
        if url.scheme == "file":
            self.files.add(Path(unquote(url.path)))
        elif url.scheme not in ("data", "blob", "about"):
            self.faults.append(f"asked the network: {request.url}")
