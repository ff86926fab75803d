// Bundles src/ into one script that a page can carry, with the licence of three.js at its head.
//   npm ci && npm run build
import { build } from "esbuild";
import { mkdir, readFile, writeFile, copyFile } from "node:fs/promises";

const out = new URL("../../comovi_model/show/player/", import.meta.url);
const three = new URL("node_modules/three/", import.meta.url);
const { version } = JSON.parse(await readFile(new URL("package.json", three), "utf8"));
const licence = await readFile(new URL("LICENSE", three), "utf8");

const result = await build({
  entryPoints: ["src/main.js"],
  bundle: true,
  minify: true,
  treeShaking: true,
  format: "iife",
  target: ["es2020"],
  legalComments: "none", // the whole licence stands above, once
  charset: "ascii",
  banner: { js: `/*! Contains parts of three.js ${version} (https://threejs.org).\n\n${licence.trim()}\n*/` },
  write: false,
  metafile: true,
});
await mkdir(out, { recursive: true });
await writeFile(new URL("player.js", out), result.outputFiles[0].text);
for (const name of ["page.html", "player.css"]) await copyFile(new URL(`src/${name}`, import.meta.url), new URL(name, out));
await copyFile(new URL("LICENSE", three), new URL("LICENSE-three.txt", out));
const sizes = Object.entries(Object.values(result.metafile.outputs)[0].inputs)
  .map(([name, { bytesInOutput }]) => [bytesInOutput, name])
  .sort((a, b) => b[0] - a[0]);
for (const [bytes, name] of sizes.slice(0, 8)) console.log(`${(bytes / 1000).toFixed(0).padStart(6)} kB  ${name}`);
console.log(`${(result.outputFiles[0].contents.length / 1000).toFixed(0).padStart(6)} kB  player.js`);
