// Runs the scenarios one after the other: node run.js --server PATH --python PATH [FILTER]
import { readdirSync, rmSync } from "node:fs";
import { basename, join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { Context } from "./harness/context.js";
import { tests } from "./harness/test.js";

const here = fileURLToPath(new URL(".", import.meta.url));
const { values: options, positionals } = parseArgs({
  allowPositionals: true,
  options: {
    server: { type: "string", default: join(here, "../../target/debug/parlor") },
    player: { type: "string", default: join(here, "../../target/debug/parlor-player") },
    chromium: { type: "string", default: "/usr/bin/chromium" },
    firefox: { type: "string", default: "/usr/bin/firefox-esr" },
    python: { type: "string", default: join(here, "../../.venv/bin/python") },
    "agents-python": { type: "string", default: join(here, "../../.venv-agents/bin/python") },
    full: { type: "boolean", default: false },
    keep: { type: "boolean", default: false },
  },
});
options.agentsPython = options["agents-python"];
const filter = positionals[0] ?? "";
const logs = join(here, ".cache", "logs");

// A call that was given up when its test failed must not end the runner.
process.on("unhandledRejection", (error) => console.log(`         late: ${error?.message ?? error}`));

async function withDeadline(test, context) {
  let timer;
  const deadline = new Promise((_, reject) => {
    timer = setTimeout(() => reject(new Error(`not done within ${test.deadlineMs} ms`)), test.deadlineMs);
  });
  try {
    await Promise.race([test.run(context), deadline]);
  } finally {
    clearTimeout(timer);
  }
}

// What Playwright says when the browser itself has ended. That is no word about the server, so
// the test is run again, once, with a new one.
const BROWSER_ENDED = /(page|context|browser) has been closed|Page crashed|Target crashed/;

async function runOne(test, again = true) {
  const folder = join(logs, test.title.replace(/[^A-Za-z0-9]+/g, "-").slice(0, 120));
  rmSync(folder, { recursive: true, force: true });
  const context = new Context(options, folder);
  const started = performance.now();
  let failure = null;
  await withDeadline(test, context).catch((error) => (failure = error));
  await context.close().catch((error) => (failure ??= error));
  if (failure && again && BROWSER_ENDED.test(failure.message)) {
    console.log(`again  ${test.title}: the browser ended`);
    await options.browser?.stop().catch(() => {});
    delete options.browser;
    return runOne(test, false);
  }
  const seconds = ((performance.now() - started) / 1000).toFixed(1);
  console.log(`${failure ? "FAILED" : "ok    "} ${test.title} (${seconds} s)`);
  for (const note of context.notes) console.log(`         ${note}`);
  if (failure) console.log(`${failure.stack ?? failure}\n         logs: ${folder}`.replace(/^/gm, "    "));
  else if (!options.keep) rmSync(folder, { recursive: true, force: true });
  // A browser that a test has broken must not break the next one.
  if (failure && options.browser) {
    await options.browser.stop().catch(() => {});
    delete options.browser;
  }
  return failure === null;
}

for (const file of readdirSync(join(here, "scenarios")).sort()) {
  const first = tests.length;
  await import(`./scenarios/${file}`);
  for (const test of tests.slice(first)) test.title = `${basename(file, ".js")}: ${test.name}`;
}
let passed = 0;
let failed = 0;
for (const test of tests) {
  if (!test.title.includes(filter) || (test.full && !options.full)) continue;
  if (await runOne(test)) passed += 1;
  else failed += 1;
}
await options.browser?.stop();
console.log(`${passed} passed, ${failed} failed`);
process.exit(failed === 0 ? 0 : 1);
