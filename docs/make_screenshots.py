"""Takes the pictures of the live page that the documents show.

    .venv/bin/python -m docs.make_screenshots

Writes docs/images/page-light.png and page-dark.png of a demo that it starts and stops itself, with a Kafka and a Redis of
its own, so that the page shows nothing else; and docs/images/page-*.png of states that a demo does not come to (a
superseded attempt, an open breaker, dead letters, a lost connection, a phone) of a bridge that it feeds by hand. Needs
what `make test` installs, and a Chromium (CHROMIUM_PATH, or one on PATH).
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.async_api import async_playwright
from playwright.sync_api import Page, ViewportSize, sync_playwright

from docs.staged_page import STAGES, staged
from tests.support.chromium import ARGUMENTS, find_chromium

IMAGES = Path(__file__).parent / "images"
VIEWPORT = ViewportSize(width=1400, height=700)
PHONE = ViewportSize(width=390, height=780)
PIXELS_PER_POINT = 1.25
ENDED_BEFORE_THE_PICTURE = 12
DEMO = ("demo", "--rate", "1.5", "--latency", "2500")


def main() -> None:
    """Entry point."""
    browser_path = find_chromium()
    if browser_path is None:
        sys.exit("no Chromium: install one, or name it in CHROMIUM_PATH")
    IMAGES.mkdir(exist_ok=True)
    asyncio.run(picture_stages(browser_path))
    picture_demo(browser_path)


def picture_demo(browser_path: Path) -> None:
    """The page during the demo, light and dark."""
    with running_demo() as url, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(browser_path), args=list(ARGUMENTS))
        page = browser.new_page(
            viewport=VIEWPORT,
            device_scale_factor=PIXELS_PER_POINT,
            reduced_motion="reduce",  # a row that flashes would be caught between two colours
        )
        page.goto(url)
        wait_for_a_telling_moment(page)
        for scheme in ("light", "dark"):
            page.emulate_media(color_scheme=scheme)
            page.screenshot(path=IMAGES / f"page-{scheme}.png")
        browser.close()


async def picture_stages(browser_path: Path) -> None:
    """The page in each of the states that are staged."""
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=str(browser_path), args=list(ARGUMENTS))
        for stage in STAGES:
            page = await browser.new_page(
                viewport=PHONE if stage.on_a_phone else VIEWPORT,
                has_touch=stage.on_a_phone,
                is_mobile=stage.on_a_phone,
                device_scale_factor=PIXELS_PER_POINT,
                reduced_motion="reduce",
                color_scheme="dark" if stage.in_the_dark else "light",
            )
            async with staged(stage, page):
                await page.screenshot(path=IMAGES / f"page-{stage.name}.png")
            await page.close()
        await browser.close()


@contextmanager
def running_demo() -> Iterator[str]:
    """A demo of its own, and the address of its page."""
    with tempfile.TemporaryDirectory(prefix="sluice-pictures-") as state_dir:
        kept = {name: value for name, value in os.environ.items() if name not in {"KAFKA_BOOTSTRAP", "REDIS_URL"}}
        demo = subprocess.Popen(
            [sys.executable, "-m", "sluice.cli", *DEMO],
            env={**kept, "SLUICE_STATE_DIR": state_dir},
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            yield address_of(demo)
        finally:
            demo.send_signal(signal.SIGTERM)
            demo.communicate(timeout=60)


def address_of(demo: subprocess.Popen[str]) -> str:
    """The page's address, from what the demo says."""
    said = []
    for line in demo.stderr or ():
        said.append(line)
        found = re.search(r"http://\S+", line)
        if found:
            return found.group()
    sys.exit("the demo did not start:\n" + "".join(said))


def wait_for_a_telling_moment(page: Page) -> None:
    """Some requests have ended, some run, and one of these is open with a part of its answer."""
    number = page.locator("#counters [data-state=completed] .number")
    page.wait_for_function(
        "([node, least]) => Number(node.textContent.replace(/\\D/g, '')) >= least",
        arg=[number.element_handle(), ENDED_BEFORE_THE_PICTURE],
        timeout=90_000,
    )
    newest = page.locator("#rows tr", has_text="Processing").first.locator("button.id")
    # Rows move all the time: a click by coordinates might meet the next one.
    newest.dispatch_event("click")
    page.locator("#stream-text", has_text=re.compile(r"\S[\s\S]{60}")).wait_for(timeout=20_000)


if __name__ == "__main__":
    main()
