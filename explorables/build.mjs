// `make explorables`: bundle the widgets into one classic script, and draw their still pictures.
// A new file in widgets/ is found by itself.

import { createHash } from "node:crypto";
import { mkdirSync, readdirSync, readFileSync, writeFileSync } from "node:fs";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { build } from "esbuild";

const here = dirname(fileURLToPath(import.meta.url));
const target = process.argv[2] || join(here, "../book/_static");
const widgets = readdirSync(join(here, "widgets"))
  .filter((name) => name.endsWith(".js"))
  .sort();

// What the bundle depends on; tests/test_explorables.py computes the same fingerprint.
const sources = [
  ...readdirSync(here).filter((name) => /\.(js|mjs)$|^package-lock\.json$/.test(name)),
  ...widgets.map((name) => `widgets/${name}`),
].sort();
const fingerprint = createHash("sha256");
for (const name of sources)
  fingerprint.update(`${name}\n${readFileSync(join(here, name), "utf8")}`);

const { outputFiles } = await build({
  stdin: {
    contents: widgets.map((name) => `import "./widgets/${name}";`).join("\n"),
    resolveDir: here,
  },
  bundle: true,
  format: "iife",
  minify: true,
  target: "es2020",
  charset: "ascii",
  write: false,
  banner: {
    js: `/* Built by \`make explorables\` from explorables/: ${fingerprint.digest("hex")} */`,
  },
});
mkdirSync(join(target, "explorables"), { recursive: true });
writeFileSync(join(target, "explorables.js"), outputFiles[0].text);

for (const name of widgets) await import(`./widgets/${name}`);
const { WIDGETS } = await import("./explorable.js");
for (const [name, { still }] of Object.entries(WIDGETS)) {
  writeFileSync(join(target, `explorables/${name}.svg`), still());
}
