"""A page in a real browser, without a window: how wide it becomes, whether its pictures load, and what it complains of.

The browser is Debian's chromium. It makes no window narrower than 500 px, so the page lies in frames of any width.
"""

import contextlib
import html
import json
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest

_PATIENCE_S = 120
_MEASURE = """<script>addEventListener("load", () => {
  const found = [...document.querySelectorAll("iframe")].map(frame => {
    const page = frame.contentDocument, root = page.documentElement, body = getComputedStyle(page.body)
    return { window: frame.contentWindow.innerWidth, width: root.scrollWidth, height: root.scrollHeight,
             pictures: page.images.length, broken: [...page.images].filter(one => !one.naturalWidth).length,
             ink: body.color, paper: body.backgroundColor, text: body.innerText || page.body.innerText }
  })
  document.documentElement.dataset.found = JSON.stringify(found)
})</script>"""


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """A page at one width."""

    window: int
    """Px."""
    width: int
    """Px that the page takes; more than `window` where it is too wide."""
    height: int
    """Px."""
    pictures: int
    """How many `img` there are."""
    broken: int
    """Those that did not load."""
    ink: str
    """Colour of the text, CSS."""
    paper: str
    """Colour behind it, CSS."""
    text: str
    """What there is to read."""


def look(
    page: str, folder: Path, *, widths: tuple[int, ...], dark: bool = False
) -> tuple[list[Seen], list[str], bytes]:
    """The page at some widths, what the console says, and a screenshot (PNG) of all of them below each other."""
    program = _program()
    frames = [f'<iframe width="{width}" height="600" srcdoc="{html.escape(page)}"></iframe>' for width in widths]
    outer, picture = folder / "outer.html", folder / "screenshot.png"
    outer.write_text(f'<!doctype html><meta charset="utf-8">{"".join(frames)}{_MEASURE}')
    command = [program, "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--enable-logging=stderr"]
    command += [f"--user-data-dir={folder / 'profile'}", "--window-size=1400,1400", "--dump-dom"]
    command += ["--blink-settings=preferredColorScheme=0"] if dark else []
    command += [f"--screenshot={picture}", outer.as_uri()]
    told, complaints = _run(command)
    match = re.search(r'data-found="([^"]*)"', told)
    assert match, f"{program} measured nothing: {complaints[-2000:]}"
    seen = [Seen(**one) for one in json.loads(html.unescape(match[1]))]
    return seen, re.findall(r"CONSOLE.*", complaints), picture.read_bytes()


def _program() -> str:
    program = shutil.which("chromium")
    if program is None:
        if os.environ.get("REQUIRE_REAL") == "1":
            pytest.fail("there is no chromium, and REQUIRE_REAL=1 asks for it: .ci/install-packages")
        pytest.skip("there is no chromium: apt install chromium")
    return program


def _run(command: list[str]) -> tuple[str, str]:
    """Standard output and error; nothing that it started is left."""
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace", start_new_session=True
    )
    try:
        return process.communicate(timeout=_PATIENCE_S)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
