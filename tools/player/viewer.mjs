// Writes the test viewer (src/viewer.js) as one HTML file:  node viewer.mjs OUT.html
import { build } from "esbuild";
import { writeFile } from "node:fs/promises";

const result = await build({
  absWorkingDir: new URL(".", import.meta.url).pathname,
  entryPoints: ["src/viewer.js"], bundle: true, minify: true, format: "iife", target: ["es2020"], write: false,
});
const script = result.outputFiles[0].text;
await writeFile(process.argv[2], `<!doctype html><meta charset="utf-8"><style>body{margin:0}</style><body><script>${script}</script></body>`);
