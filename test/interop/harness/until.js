// Waiting for a condition, never for a time.
const PAUSE_MS = 50;

// Calls `condition` until it gives something true, and returns that. `condition` may return
// `{ waiting: "what is missing" }`, which is named when the deadline passes.
export async function until(what, deadlineMs, condition) {
  const end = performance.now() + deadlineMs;
  let last;
  for (;;) {
    last = await condition();
    const waits = typeof last === "object" && last !== null && "waiting" in last;
    if (last && !waits) return last;
    if (performance.now() > end) break;
    await new Promise((resolve) => setTimeout(resolve, PAUSE_MS));
  }
  const missing = last?.waiting === undefined ? "" : `; last seen: ${JSON.stringify(last.waiting)}`;
  throw new Error(`not within ${deadlineMs} ms: ${what}${missing}`);
}
