// The list of tests that scenario files fill.
export const tests = [];

// Options: `server: false` for a test of the harness itself, `full: true` for a long run.
export function test(name, options, run) {
  if (run === undefined) [options, run] = [{}, options];
  tests.push({ name, deadlineMs: 180_000, ...options, run });
}
