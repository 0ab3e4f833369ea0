"""The browser client: its own tests in node, as the bridge serves it, and the chart library beside the page."""

import asyncio
import hashlib
import json
import re
import shutil
import subprocess
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest
from bridge_support import Watched, delta, serving, status_event
from page_support import live_hub

from schemas.vocabulary import State
from websocket_bridge.assets import CHECKOUT_CLIENT, PAGE_FOLDER, load_assets
from websocket_bridge.generate_schema import PUSHES

NODE_TIMEOUT_SECONDS = 60
needs_node = pytest.mark.skipif(shutil.which("node") is None, reason="node is not installed")
needs_npm = pytest.mark.skipif(shutil.which("npm") is None, reason="npm is not installed")
DECLARATIONS = (CHECKOUT_CLIENT / "sluice-client.d.ts").read_text(encoding="utf-8")
TELL = """
import * as client from "sluice-client";
const members = ({ prototype }) => Object.getOwnPropertyNames(prototype).filter((name) => name !== "constructor");
const classes = { SluiceClient: members(client.SluiceClient), Transcript: members(client.Transcript) };
const fields = Object.keys(new client.SluiceClient("ws://x"));
console.log(JSON.stringify({ exported: Object.keys(client), classes, fields }));
"""
FOLLOW = """
import { SluiceClient, Transcript } from "sluice-client";
const client = new SluiceClient(process.argv[2]);
const answer = new Transcript();
const pushes = client.events({ requestId: "req-1" });
client.connect();
await client.subscribe({ request_ids: ["req-1"], deltas: true });
console.log("following");
for await (const push of pushes) {
  if (["text", "delta", "void"].includes(push.type)) answer.apply(push);
  if (push.type === "status" && push.event.state === "completed") break;
}
client.close();
console.log(answer.text);
"""


@needs_node
def test_the_parts_without_a_network_pass_their_tests_in_node() -> None:
    """Order, text, subscriptions, backoff, tickets, close codes, against a socket that tests play."""
    command = ["node", "--test", "test/"]
    done = subprocess.run(
        command, cwd=CHECKOUT_CLIENT, capture_output=True, text=True, timeout=NODE_TIMEOUT_SECONDS, check=False
    )
    assert done.returncode == 0, done.stdout[-4000:]


@needs_npm
def test_it_packs_as_a_package_with_all_that_it_imports() -> None:
    """Every module, the types and the README; no test."""
    command = ["npm", "pack", "--dry-run", "--json", "--ignore-scripts"]
    done = subprocess.run(command, cwd=CHECKOUT_CLIENT, capture_output=True, text=True, timeout=60, check=True)
    files = {each["path"] for each in json.loads(done.stdout)[0]["files"]}
    modules = {path.name for path in CHECKOUT_CLIENT.glob("*.js")}
    assert files == modules | {"package.json", "README.md", "sluice-client.d.ts"}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project of somebody else's, with the package installed as npm does it."""
    folder = tmp_path_factory.mktemp("project")
    (folder / "package.json").write_text('{"type": "module", "private": true}')
    for command in (
        ["npm", "pack", str(CHECKOUT_CLIENT), "--ignore-scripts"],
        ["npm", "install", "--offline", "--no-audit", "--no-fund", "--ignore-scripts", "./sluice-client-0.1.0.tgz"],
    ):
        subprocess.run(command, cwd=folder, capture_output=True, timeout=NODE_TIMEOUT_SECONDS, check=True)
    return folder


@needs_npm
def test_installed_as_a_package_it_exports_what_its_types_declare(project: Path) -> None:
    """Each name, each member of its classes, and nothing that is not declared; the types are found beside it."""
    (project / "tell.js").write_text(TELL)
    done = subprocess.run(["node", "tell.js"], cwd=project, capture_output=True, text=True, timeout=60, check=True)
    told = json.loads(done.stdout)
    package = json.loads((project / "node_modules" / "sluice-client" / "package.json").read_text())
    assert (project / "node_modules" / "sluice-client" / package["types"]).is_file()
    assert set(told["exported"]) == set(
        re.findall(r"^export declare (?:class|const|function) (\w+)", DECLARATIONS, re.MULTILINE)
    )
    for name, members in told["classes"].items():
        (body,) = re.findall(rf"^export declare class {name} \{{\n(.*?)^}}", DECLARATIONS, re.MULTILINE | re.DOTALL)
        declared = set(re.findall(r"^  (?:readonly )?(\w+)", body, re.MULTILINE)) - {"constructor"}
        assert set(members) <= declared, name
        if name == "SluiceClient":
            assert declared <= {*members, *told["fields"]}


@needs_npm
def test_every_push_of_the_protocol_has_a_type() -> None:
    """What a client may be told, by its name; a snapshot and a position never reach whoever listens."""
    pushes = {model.model_fields["type"].annotation.__args__[0] for model in PUSHES}
    declared = set(re.findall(r'\btype: "(\w+)"', DECLARATIONS))
    assert pushes - {"snapshot", "position"} <= declared


@needs_npm
async def test_installed_as_a_package_it_follows_a_request_in_node(project: Path) -> None:
    """Over a real bridge, from the middle of an answer to its end."""
    (project / "follow.js").write_text(FOLLOW)
    hub, metrics = live_hub()
    hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1))
    hub.on_delta(delta("req-1", 0, "Once "))
    async with serving(hub, metrics) as server, asyncio.timeout(NODE_TIMEOUT_SECONDS):
        url = server.url.replace("http", "ws") + "ws"
        # Node 20 has its WebSocket behind a flag, which later ones take as well.
        node = await asyncio.create_subprocess_exec(
            "node", "--experimental-websocket", "follow.js", url, cwd=project, stdout=asyncio.subprocess.PIPE
        )
        assert node.stdout is not None
        assert await node.stdout.readline() == b"following\n"
        hub.on_delta(delta("req-1", 1, "upon."))
        hub.on_status(status_event("req-1", State.COMPLETED, 3, attempt=1))
        hub.flush()
        rest, _ = await node.communicate()
    assert (node.returncode, rest) == (0, b"Once upon.\n")


def test_the_bridge_serves_every_module_that_page_and_client_import() -> None:
    """Relative to whoever imports it; and neither asks for anything of another origin."""
    assets = load_assets()
    for path, asset in assets.items():
        if not path.endswith(".js") or path.startswith("/vendor/"):
            continue
        text = asset.body.decode()
        for name in re.findall(r'^(?:import|export) .*?from "([^"]+)"', text, re.MULTILINE):
            target = name if name.startswith("/") else f"{path.rpartition('/')[0]}/{name.removeprefix('./')}"
            assert target in assets, f"{path} imports {name}"
        assert "https://" not in text, path


def test_the_chart_library_is_what_its_note_says() -> None:
    """Unchanged since it was fetched, with its licence beside it."""
    folder = PAGE_FOLDER / "vendor"
    noted = dict(re.findall(r"^\| (\S+) \| ([0-9a-f]{64}) \|$", (folder / "README.md").read_text(), re.MULTILINE))
    shipped = {path.name for path in folder.iterdir() if path.suffix in {".js", ".css"}}
    assert shipped == {name for name in noted if not name.endswith(".tgz")}
    for name in shipped:
        assert hashlib.sha256((folder / name).read_bytes()).hexdigest() == noted[name]
    assert "MIT License" in (folder / "uPlot.LICENSE").read_text()
    notice = Path(__file__).parents[2] / "NOTICE"
    assert "uPlot" in notice.read_text()


@asynccontextmanager
async def blank_page() -> AsyncIterator[str]:
    """An origin with an empty page and no policy, as somebody else's application is one."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        yield f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"


@pytest.mark.browser
async def test_a_page_of_another_origin_imports_it_and_reads_one_request(watched: Watched) -> None:
    """From the bridge itself, by a page that the bridge lets in: push by push, to the end."""
    hub, metrics = live_hub()
    hub.on_status(status_event("req-1", State.PROCESSING, 2, attempt=1))
    hub.on_delta(delta("req-1", 0, "Once "))
    async with blank_page() as origin, serving(hub, metrics, allowed_origins=[origin]) as server:
        await watched.page.goto(origin)
        reading = watched.page.evaluate_handle(
            """async (base) => {
                    const { SluiceClient, Transcript } = await import(`${base}client/sluice-client.js`);
                    const client = new SluiceClient(base.replace("http", "ws") + "ws");
                    const transcript = new Transcript();
                    const states = [];
                    const pushes = client.events({ requestId: "req-1" });
                    client.connect();
                    await client.subscribe({ request_ids: ["req-1"], deltas: true });
                    document.title = "following";
                    for await (const push of pushes) {
                        if (["text", "delta", "void"].includes(push.type)) transcript.apply(push);
                        if (push.type === "status") states.push(push.event.state);
                        if (states.at(-1) === "completed") break;
                    }
                    client.close();
                    return { states, text: transcript.text };
                }""",
            server.url,
        )

        async def write() -> None:
            await watched.page.wait_for_function("document.title === 'following'")
            hub.on_delta(delta("req-1", 1, "upon."))
            hub.on_status(status_event("req-1", State.COMPLETED, 3, attempt=1))
            hub.flush()

        told, _ = await asyncio.gather(reading, write())
        assert await told.json_value() == {"states": ["processing", "completed"], "text": "Once upon."}
