// The page of `comovi show`: puts the parts together and connects them to the buttons.
import { Clock } from "./clock.js";
import { Film } from "./film.js";
import { Stage } from "./stage.js";

const element = (id) => document.getElementById(id);
const bytesOf = (id) => Uint8Array.from(atob(element(id).textContent.trim()), (letter) => letter.charCodeAt(0));
const info = JSON.parse(element("info").textContent);

function fail(sentence) {
  element("message").textContent = sentence;
  element("message").hidden = false;
}

function toggle(label, tip, pressed, change) {
  const button = document.createElement("button");
  button.type = "button";
  button.textContent = label;
  button.title = tip;
  const set = (value) => {
    button.setAttribute("aria-pressed", String(value));
    change(value);
  };
  button.addEventListener("click", () => set(button.getAttribute("aria-pressed") !== "true"));
  button.setAttribute("aria-pressed", String(pressed));
  return { button, set };
}

async function start() {
  const glb = bytesOf("glb");
  const stage = new Stage(element("stage"), info);
  await stage.load(glb.buffer);
  const film = info.movie ? new Film(element("film"), bytesOf("movie"), info.movie) : null;
  const clock = new Clock(info, film, (seconds) => {
    stage.show(seconds);
    const frame = clock.frame;
    element("scrub").value = frame;
    element("time").textContent = `frame ${frame} / ${info.frames - 1} \u2003 ${(frame / info.fps).toFixed(2)} s`;
    element("play").setAttribute("aria-label", clock.playing ? "Pause" : "Play");
  });
  buttons(stage, film);
  controls(clock, stage);
  element("save").href = URL.createObjectURL(new Blob([glb], { type: "model/gltf-binary" }));
  element("save").download = `${info.name}.glb`;
  if (film) {
    await film.ready;
    film.video.addEventListener("seeked", () => stage.draw()); // for the picture behind the body
  }
  clock.seek(0);
  window.comovi = { stage, clock, film, info, ready: true }; // for the console, and for tests
  document.body.dataset.ready = "true";
  if (!matchMedia("(prefers-reduced-motion: reduce)").matches && !location.hash.includes("paused")) clock.play();
}

function buttons(stage, film) {
  const views = [
    ["front", "From the front of the first pose (1)"],
    ["side", "From the person's left (2)"],
    ["back", "From behind (3)"],
    ["top", "From above (4)"],
  ];
  if (info.camera) views.push(["camera", "Through the camera of the motion (5)"]);
  for (const [name, tip] of views) {
    const button = document.createElement("button");
    button.type = "button";
    button.textContent = name;
    button.title = tip;
    button.addEventListener("click", () => stage.look(name));
    element("views").append(button);
  }
  const options = {
    body: toggle("body", "The surface of the body (B)", true, (on) => stage.set("body", on)),
    skeleton: toggle("skeleton", "Joints and bones; left is orange, right is blue (S)", false, (on) => stage.set("skeleton", on)),
    parts: toggle("parts", "A colour for each part of the body (P)", false, (on) => stage.set("parts", on)),
    wires: toggle("wires", "The triangles (W)", false, (on) => stage.set("wires", on)),
    path: toggle("path", "The path of the pelvis on the floor (T)", true, (on) => stage.set("path", on)),
    grid: toggle("grid", "Floor with lines every half metre (G)", true, (on) => stage.set("grid", on)),
    follow: toggle("follow", "The view goes along with the person (F)", info.walks, (on) => stage.set("follow", on)),
  };
  if (info.camera && film) {
    const tip = "The body over the video, through the camera of the motion (O)";
    options.over = toggle("over video", tip, false, (on) => stage.set("over", on && film.works ? film.video : null));
    stage.onLook = (name) => {
      if (name !== "camera" && options.over.button.getAttribute("aria-pressed") === "true") options.over.set(false);
    };
  }
  for (const { button } of Object.values(options)) element("options").append(button);
  const keys = { b: "body", s: "skeleton", p: "parts", w: "wires", t: "path", g: "grid", f: "follow", o: "over" };
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const view = views[Number(event.key) - 1];
    if (view) stage.look(view[0]);
    options[keys[event.key.toLowerCase()]]?.button.click();
  });
}

function controls(clock, stage) {
  const scrub = element("scrub");
  scrub.max = info.frames - 1;
  scrub.addEventListener("input", () => clock.seek(Number(scrub.value)));
  element("play").addEventListener("click", () => clock.toggle());
  element("back").addEventListener("click", () => clock.step(-1));
  element("forth").addEventListener("click", () => clock.step(1));
  element("speed").addEventListener("change", (event) => clock.setSpeed(Number(event.target.value)));
  const loop = element("loop");
  const turnLoop = () => {
    clock.loop = !clock.loop;
    loop.setAttribute("aria-pressed", String(clock.loop));
  };
  loop.addEventListener("click", turnLoop);
  window.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey || event.target.tagName === "SELECT") return;
    const actions = {
      " ": () => clock.toggle(), ArrowLeft: () => clock.step(-1), ArrowRight: () => clock.step(1),
      Home: () => clock.seek(0), End: () => clock.seek(info.frames - 1), l: turnLoop, L: turnLoop,
    };
    if (!actions[event.key]) return;
    event.preventDefault();
    actions[event.key]();
  });
  element("play").addEventListener("keydown", (event) => event.key === " " && event.preventDefault());
}

start().catch((error) => fail(`The 3D view could not start: ${error.message || error}. It needs a browser with WebGL 2.`));
