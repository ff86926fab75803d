"""Makes the workflow files from their description: ComfyUI's own web page builds each graph and says what to save.

python tools/export_workflows.py --server http://127.0.0.1:8188 [NAME ...]

The server is a running ComfyUI with this pack. The page fills every widget itself, so that the files hold what a person
would have saved by hand: `workflows/NAME.json` for the canvas, `workflows/api/NAME.json` for the HTTP API.
Needs `pip install playwright` and a Chromium (`--chromium`).
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from urllib.request import urlopen

sys.path.insert(0, str(Path(__file__).resolve().parent))
from workflow_graphs import FLOWS
from workflow_parts import Flow, Node, Out

ROOT = Path(__file__).resolve().parent.parent
FOLDER = ROOT / "workflows"
FLAGS = (
    "--no-sandbox",
    "--use-gl=angle",
    "--use-angle=swiftshader",
    "--enable-unsafe-swiftshader",
    "--ignore-gpu-blocklist",
)
REGISTRY_NAME = "comfyui-comovi"
CODEC_OF_OLDER_COMFYUIS = {"SaveVideo": {"codec": "auto"}}  # newer ones keep the codec inside the format

BUILD = r"""
async ({api, flow}) => {
  await app.loadApiJson(api, flow.name);
  const graph = app.rootGraph ?? app.graph;
  const node = id => graph.getNodeById(id) ?? graph.getNodeById(String(id));
  const MARGIN = 20, GAP = 40, BELOW = 56, TITLE = 34, GROUP_TITLE = 50, BETWEEN = 40;
  const add = (id, values) => {
    const item = node(id);
    if (values.title) item.title = values.title;
    if (values.colour) { item.color = values.colour[0]; item.bgcolor = values.colour[1]; }
    for (const [name, value] of Object.entries(values.widgets ?? {})) {
      const widget = item.widgets?.find(w => w.name === name);
      if (!widget) throw Error(`node ${item.type} has no widget ${name}`);
      widget.value = value;
    }
    const least = item.computeSize();
    item.setSize([Math.max(values.width, least[0]), Math.max(values.height ?? 0, least[1])]);
    Object.assign(item.properties, values.properties ?? {});
    return item;
  };
  let x = 0;
  if (flow.note) {
    const note = LiteGraph.createNode('MarkdownNote');
    graph.add(note);
    note.title = flow.title;
    note.widgets[0].value = flow.note;
    note.color = '#432'; note.bgcolor = '#000';
    note.pos = [x, TITLE];
    note.setSize([flow.note_width, flow.note_height]);
    x += flow.note_width + BETWEEN;
  }
  for (const column of flow.columns) {
    let y = 0, widest = 0;
    for (const group of column) {
      let inner_x = x + MARGIN, bottom = 0;
      for (const stack of group.stacks) {
        let inner_y = y + GROUP_TITLE + TITLE, wide = 0;
        for (const values of stack) {
          const item = add(values.id, values);
          item.pos = [inner_x, inner_y];
          inner_y += item.size[1] + BELOW + TITLE;
          wide = Math.max(wide, item.size[0]);
        }
        bottom = Math.max(bottom, inner_y - BELOW - TITLE);
        inner_x += wide + GAP;
      }
      const frame = new LGraphGroup(group.title);
      frame.color = group.colour;
      frame.font_size = 20;
      frame.pos = [x, y];
      frame.size = [inner_x - GAP + MARGIN - x, bottom + MARGIN - y];
      graph.add(frame);
      widest = Math.max(widest, frame.size[0]);
      y += frame.size[1] + BETWEEN;
    }
    for (const frame of graph._groups ?? graph.groups)
      if (Math.abs(frame.pos[0] - x) < 1) frame.size = [widest, frame.size[1]];
    x += widest + BETWEEN;
  }
  const nodes = graph._nodes ?? graph.nodes;
  const right = Math.max(...nodes.map(n => n.pos[0] + n.size[0])) + MARGIN;
  const low = Math.max(...nodes.map(n => n.pos[1] + n.size[1])) + MARGIN;
  const scale = Math.min(0.8, Math.max(0.6, 1600 / right));  // below 0.58 the page draws no letters
  app.canvas.ds.scale = scale;
  app.canvas.ds.offset = [60 / scale, 80 / scale];
  app.canvas.setDirty(true, true);
  await new Promise(done => setTimeout(done, 300));
  const made = await app.graphToPrompt();
  const overlaps = [];
  for (const a of nodes) for (const b of nodes)
    if (a.id < b.id && a.pos[0] < b.pos[0] + b.size[0] && b.pos[0] < a.pos[0] + a.size[0]
        && a.pos[1] - TITLE < b.pos[1] + b.size[1] && b.pos[1] - TITLE < a.pos[1] + a.size[1])
      overlaps.push([a.title, b.title]);
  return JSON.stringify({workflow: made.workflow, output: made.output, overlaps, size: [right, low],
                         missing: nodes.filter(n => n.has_errors).map(n => n.type)});
}
"""


def numbered(flow: Flow) -> dict[str, int]:
    return {node.key: number for number, node in enumerate(flow.nodes(), start=1)}


def api_graph(flow: Flow, known: dict) -> dict:
    """The flow as an API prompt: what the page builds its nodes from."""
    ids = numbered(flow)
    types = {node.key: node.type for node in flow.nodes()}

    def value(node: Node, name: str, given):
        if not isinstance(given, Out):
            return given
        names = known[types[given.key]]["output_name"]
        if given.name not in names:
            raise SystemExit(
                f"{flow.name}: {node.key}.{name}: {types[given.key]} has no output {given.name}, but {names}"
            )
        return [str(ids[given.key]), names.index(given.name)]

    graph = {}
    for node in flow.nodes():
        if node.type not in known:
            raise SystemExit(f"{flow.name}: the server has no node {node.type}")
        inputs = {name: value(node, name, given) for name, given in node.inputs.items()}
        taken = {name for kind in ("required", "optional") for name in known[node.type]["input"].get(kind, {})}
        for name in inputs:
            if name.split(".")[0] not in taken:
                raise SystemExit(f"{flow.name}: {node.type} has no input {name}, but {sorted(taken)}")
        title = node.title or known[node.type]["display_name"]
        graph[str(ids[node.key])] = {"class_type": node.type, "inputs": inputs, "_meta": {"title": title}}
    return graph


def layout(flow: Flow, known: dict) -> dict:
    ids = numbered(flow)

    def place(node: Node) -> dict:
        ours = node.type.startswith("CoMoVi_")
        properties = {"Node name for S&R": node.type, **({"cnr_id": REGISTRY_NAME} if ours else {}), **node.properties}
        return {
            "id": ids[node.key],
            "title": node.title,
            "colour": node.colour,
            "width": node.width,
            "height": node.height,
            "widgets": node.widgets,
            "properties": properties,
        }

    columns = [
        [{"title": g.title, "colour": g.colour, "stacks": [[place(n) for n in s] for s in g.stacks]} for g in column]
        for column in flow.columns
    ]
    return {
        "name": flow.name,
        "title": flow.title,
        "note": flow.note(),
        "note_width": flow.note_width,
        "note_height": flow.note_height,
        "columns": columns,
    }


def finish(workflow: dict, output: dict) -> None:
    """What a stranger's machine needs, and nothing about this one."""
    workflow["extra"] = {
        name: workflow["extra"][name] for name in ("ds", "frontendVersion") if name in workflow["extra"]
    }
    workflow.pop("id", None)
    for node in workflow["nodes"]:
        for number in (0, 1):
            node["pos"][number] = round(node["pos"][number])
            node["size"][number] = round(node["size"][number])
    for step in output.values():
        for name, value in CODEC_OF_OLDER_COMFYUIS.get(step["class_type"], {}).items():
            step["inputs"].setdefault(name, value)
        if step["class_type"] in ("Preview3D",):
            step["inputs"].pop("image", None)


def write_json(path: Path, value: dict) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def open_page(browser, server: str):
    page = browser.new_page(viewport={"width": 1600, "height": 1000})
    page.goto(server)
    page.wait_for_function("window.app && window.app.vueAppReady", timeout=60_000)
    page.wait_for_timeout(3_000)  # the page loads its start graph last
    return page


def export(flow: Flow, page, known: dict) -> None:
    made = json.loads(page.evaluate(BUILD, {"api": api_graph(flow, known), "flow": layout(flow, known)}))
    if made["overlaps"] or made["missing"]:
        raise SystemExit(f"{flow.name}: overlapping nodes {made['overlaps']}, unknown nodes {made['missing']}")
    finish(made["workflow"], made["output"])
    write_json(FOLDER / f"{flow.name}.json", made["workflow"])
    write_json(FOLDER / "api" / f"{flow.name}.json", made["output"])
    print(f"{flow.name}: {len(made['output'])} nodes, {made['size'][0]:.0f} x {made['size'][1]:.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="NAME", help="workflows to make; without names, all of them")
    parser.add_argument("--server", default="http://127.0.0.1:8188")
    parser.add_argument("--chromium", default="/usr/bin/chromium", help="the browser; empty for playwright's own")
    options = parser.parse_args()
    unknown = set(options.names) - {flow.name for flow in FLOWS}
    if unknown:
        raise SystemExit(f"no such workflow: {sorted(unknown)}; there are {[flow.name for flow in FLOWS]}")

    from playwright.sync_api import sync_playwright

    with urlopen(f"{options.server}/object_info") as answer:
        known = json.load(answer)
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=options.chromium or None, args=list(FLAGS))
        for flow in FLOWS:
            if not options.names or flow.name in options.names:
                page = open_page(browser, options.server)  # a new one, because widgets remember values by node number
                export(flow, page, known)
                page.close()
        browser.close()


if __name__ == "__main__":
    main()
