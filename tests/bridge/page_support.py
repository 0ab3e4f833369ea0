"""What the tests of the page share: where things are on it, and axe, which looks at it as assistive technology does."""

import json
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import filelock
import pytest
from bridge_support import HubOptions, make_hub
from playwright.async_api import Locator, Page, expect

from schemas.vocabulary import State
from sluice.stack.locations import cache_dir
from websocket_bridge.hub import Hub
from websocket_bridge.messages import FeedState
from websocket_bridge.metrics import BridgeMetrics

AXE_VERSION = "4.10.3"
_INSTALL_TIMEOUT_SECONDS = 300
HOSTILE = "<img src=x onerror=window.hacked=1><script>window.hacked=1</script>\u202egnp.exe"
TIMEOUT_MS = 15_000
SEE_FRAMES = """
    // Every frame of every connection, as the browser got it.
    window.frames_seen = [];
    const Native = WebSocket;
    window.WebSocket = class extends Native {
        constructor(...all) {
            super(...all);
            this.addEventListener("message", ({ data }) => window.frames_seen.push(JSON.parse(data)));
        }
    };
"""

expect.set_options(timeout=TIMEOUT_MS)


def live_hub(options: HubOptions | None = None, **more: Any) -> tuple[Hub, BridgeMetrics]:
    hub, metrics, _ = make_hub(options, **more)
    hub.on_feed(FeedState.LIVE)
    return hub, metrics


def row(page: Page, request_id: str) -> Locator:
    return page.get_by_role("row").filter(has=page.get_by_role("button", name=request_id, exact=True))


def counter(page: Page, state: State) -> Locator:
    return page.locator(f"#counters [data-state={state}] .number")


async def is_live(page: Page) -> None:
    await expect(page.get_by_role("status")).to_have_text("Live")


async def violations(page: Page) -> list[str]:
    """What axe finds: rule, and where. Its script is put in by the debugger, past the page's policy."""
    await page.evaluate(_axe_source())
    found = await page.evaluate("axe.run(document, { resultTypes: ['violations'] })")
    return [
        json.dumps([each["id"], [[node["target"], node["failureSummary"]] for node in each["nodes"][:3]]])
        for each in found["violations"]
    ]


def _axe_source() -> str:
    final = cache_dir() / f"axe-core-{AXE_VERSION}"
    final.parent.mkdir(parents=True, exist_ok=True)
    with filelock.FileLock(f"{final}.lock", timeout=_INSTALL_TIMEOUT_SECONDS):
        if not final.is_dir():
            if shutil.which("npm") is None:
                pytest.skip("npm is needed to fetch axe-core")
            # Beside its place and renamed, so that an interrupted download never counts.
            with tempfile.TemporaryDirectory(dir=final.parent, prefix=f"{final.name}.partial-") as partial:
                folder = Path(partial) / "npm"
                command = ["npm", "install", "--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]
                subprocess.run(
                    [*command, f"axe-core@{AXE_VERSION}"],
                    check=True,
                    capture_output=True,
                    timeout=_INSTALL_TIMEOUT_SECONDS,
                )
                folder.rename(final)
    return (final / "node_modules" / "axe-core" / "axe.min.js").read_text(encoding="utf-8")
