// node build.mjs WIT OUTPUT: makes a component of app.js.
import { componentize } from "@bytecodealliance/componentize-js";
import { writeFile } from "node:fs/promises";

const [witPath, output] = process.argv.slice(2);
const { component } = await componentize({
  sourcePath: new URL("app.js", import.meta.url).pathname,
  witPath,
  worldName: "bindings",
  disableFeatures: ["fetch-event"],
});
await writeFile(output, component);
