"""How much room a run's trace takes: `python -m tests.bench.trace_size RUN…`

By run and altogether: bytes of the trace as it would be written today (packed) and of its events as plain JSON, and what
its attempts' own events take against the bytes of what models said and tools answered (`messages`).
"""

import argparse
import json
import tempfile
from pathlib import Path

from harness import trace

COLUMNS = ("turns", "messages", "of attempts", "ratio", "packed", "plain", "plain : packed")


def measure(run: Path) -> tuple[int, int, int, int, int]:
    """Turns, bytes of messages, of the attempts' events, of all events packed, and plain."""
    events = list(trace.read(run / "trace.jsonl"))
    with tempfile.TemporaryDirectory() as scratch:
        path = Path(scratch) / "trace.jsonl"
        log = trace.Trace(path)
        for event in events:
            log.write(event)
        log.close()
        lines = path.read_bytes().splitlines(keepends=True)
    worked = {e.attempt for e in events if isinstance(e, trace.TurnEnded)}
    own = sum(len(line) for event, line in zip(events, lines, strict=True) if event.attempt in worked)
    said = sum(len(json.dumps(e.message)) for e in events if isinstance(e, trace.Replied) and e.attempt in worked)
    said += sum(len(json.dumps(e.result)) for e in events if isinstance(e, trace.ToolRan) and e.attempt in worked)
    plain = sum(len(json.dumps(trace.to_json(event))) + 1 for event in events)
    return sum(isinstance(e, trace.TurnEnded) for e in events), said, own, sum(map(len, lines)), plain


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+")
    runs = parser.parse_args().runs
    found = {run.name: measure(run) for run in runs}
    found["all"] = tuple(map(sum, zip(*found.values(), strict=True)))  # type: ignore[assignment]
    print(f"{'run':<24}" + "".join(f"{name:>16}" for name in COLUMNS))
    for name, (turns, said, own, packed, plain) in found.items():
        row = (turns, said, own, round(own / max(1, said), 2), packed, plain, round(plain / packed, 1))
        print(f"{name[:24]:<24}" + "".join(f"{value:>16}" for value in row))


if __name__ == "__main__":
    main()
