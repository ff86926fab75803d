"""Runs workflows in ComfyUI's own web page and photographs them: docs/workflow_NAME.jpg.

python tools/workflow_screenshots.py --server http://127.0.0.1:8188 [NAME ...]

It ends with an error when a node is unknown, when the run fails, or when the page complains of something missing or
deprecated that it does not complain of without our workflow. Needs what tools/export_workflows.py needs.
"""

from __future__ import annotations

import argparse
import io
import json
import sys
import time
from pathlib import Path

from PIL import Image

sys.path.insert(0, str(Path(__file__).resolve().parent))
from export_workflows import FLAGS, FOLDER, ROOT

SHOWN = ("quick_start_nano", "drive_video_with_my_motion")
WIDTH = 1600  # of the picture; the page is larger, so that the nodes' letters are drawn
ZOOM, MARGIN, TOP = 0.62, 90, 130
OF_THE_CORE = ("THREE.Clock",)  # the page's own 3D library says so of itself
COMPLAINTS = ("missing", "deprecated", "not found", "unknown node", "failed")
LONGEST_RUN = 600  # seconds
UNKNOWN = """() => app.rootGraph._nodes
  .filter(node => node.has_errors || !(node.type in LiteGraph.registered_node_types))
  .map(node => node.type)"""
WAITING = """async () => {
  const queue = await (await fetch('/queue')).json();
  return queue.queue_running.length + queue.queue_pending.length;
}"""
VIEW = """async ([zoom, margin, top]) => {
  for (const part of ['Comfy.Minimap.Visible', 'Comfy.RightSidePanel.IsOpen'])
    await app.extensionManager.setting.set(part, false);
  await app.extensionManager.setting.set('Comfy.Graph.CanvasInfo', false);
  app.canvas.ds.scale = zoom;
  app.canvas.ds.offset = [margin / zoom, top / zoom];
  app.canvas.setDirty(true, true);
}"""
VIDEOS = """async () => {
  const videos = [...document.querySelectorAll('video')];
  for (const video of videos) {
    video.pause();
    video.controls = false;
    if (video.duration) video.currentTime = 0.6 * video.duration;
  }
  return videos.filter(video => video.readyState >= 2).length;
}"""


def extent(graph: dict) -> tuple[int, int]:
    boxes = [(*node["pos"], *node["size"]) for node in graph["nodes"]]
    frames = [group["bounding"] for group in graph["groups"]]
    return max(x + w for x, _, w, _ in [*boxes, *frames]), max(y + h for _, y, _, h in [*boxes, *frames])


def photograph(browser, server: str, name: str) -> None:
    graph = json.loads((FOLDER / f"{name}.json").read_text(encoding="utf-8"))
    right, low = extent(graph)
    size = {"width": round(right * ZOOM) + 2 * MARGIN, "height": round(low * ZOOM) + TOP + MARGIN // 2}
    page = browser.new_page(viewport=size)
    said: list[str] = []
    page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: said.append(f"error: {error}"))
    page.goto(server)
    page.wait_for_function("window.app && window.app.vueAppReady", timeout=90_000)
    page.wait_for_timeout(4_000)
    said.clear()  # what the page says of itself
    page.evaluate("async ([graph, name]) => await app.loadGraphData(graph, true, true, name)", [graph, name])
    page.wait_for_timeout(2_000)
    unknown = page.evaluate(UNKNOWN)
    started = time.monotonic()
    page.evaluate("async () => await app.queuePrompt(0, 1)")
    while page.evaluate(WAITING):
        if time.monotonic() - started > LONGEST_RUN:
            raise SystemExit(f"{name}: still running after {LONGEST_RUN} s")
        page.wait_for_timeout(1_000)
    seconds = time.monotonic() - started
    page.evaluate(VIEW, [ZOOM, MARGIN, TOP])
    clips = sum(node["type"] == "SaveVideo" for node in graph["nodes"])
    for _ in range(30):  # seconds in which the page fetches videos and the body
        page.wait_for_timeout(1_000)
        if page.evaluate(VIDEOS) >= clips:
            break
    page.wait_for_timeout(4_000)
    picture = Image.open(io.BytesIO(page.screenshot(timeout=120_000))).convert("RGB")
    failed = page.evaluate("() => app.lastExecutionError ? [app.lastExecutionError.exception_message] : []")
    page.close()
    complaints = [line for line in said if any(word in line.lower() for word in COMPLAINTS)]
    complaints = [line for line in complaints if not any(known in line for known in OF_THE_CORE)]
    if unknown or failed or complaints:
        raise SystemExit(f"{name}: unknown nodes {unknown}, failed {failed}, the page says {complaints}")
    picture = picture.resize((WIDTH, round(picture.height * WIDTH / picture.width)), Image.Resampling.LANCZOS)
    target = ROOT / "docs" / f"workflow_{name}.jpg"
    picture.save(target, quality=85, optimize=True)
    print(f"{name}: {seconds:.0f} s, {target.stat().st_size} bytes, console: {said or 'silent'}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"workflows; without names {', '.join(SHOWN)}")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser; empty for playwright's own")
    options = parser.parse_args()

    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium or None, args=list(FLAGS))
        for name in options.names or SHOWN:
            photograph(browser, options.server, name)
        browser.close()


if __name__ == "__main__":
    main()
