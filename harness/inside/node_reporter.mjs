// A reporter of node's own test runner, for troop_tools.py: one JSON object a line of each test as it ends, and what
// tests print as it is.
export default async function* report(events) {
  const names = [];
  for await (const { type, data } of events) {
    if (/std(out|err)$/.test(type)) yield data.message;
    if (/:(start|pass|fail)$/.test(type)) names.splice(data.nesting, 1e9, data.name);
    if (!/:(pass|fail)$/.test(type)) continue;
    const { error, type: kind, duration_ms: duration } = data.details;
    const status = data.skip != null || data.todo != null ? "skipped" : type.slice(5);
    const message = String(error?.cause?.stack ?? "");
    yield `${JSON.stringify({ names, file: data.file, duration, status, of: error?.failureType ?? kind, message })}\n`;
  }
}
