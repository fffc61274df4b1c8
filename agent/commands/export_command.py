"""`troop export RUN --format FORM`: the attempts of a run as other tools read them, or its trace unpacked."""

import argparse
import json
from pathlib import Path

from agent.commands.options import run_of
from agent.commands.progress import Progress
from agent.run_files import RunFiles
from harness import trace
from harness.cache import write_text
from harness.outputs import make_output
from harness.trajectories import ENDINGS, of_run, written


def execute(known: argparse.Namespace) -> int:
    """One file for each attempt that has ended, or one for all; their names are printed."""
    out, files = known.out, RunFiles(run_of(known).resolve())
    events = list(trace.read(files.trace_file))
    out, ending = out or files.directory / "export", ENDINGS.get(known.format, ".jsonl")
    if known.format == "events":
        texts = {str(out / f"events{ending}"): "".join(f"{json.dumps(trace.to_json(e))}\n" for e in events)}
    else:
        texts = {str(out / f"attempt-{n:02d}{ending}"): written(each, known.format) for n, each in of_run(events)}
    if known.format == "openai":
        texts = {str(out / f"attempts{ending}"): "".join(texts.values())}
    make_output(out)
    for name, text in texts.items():
        write_text(Path(name), text)
    progress = Progress(quiet=True, json=known.json)
    progress.show(*texts)
    progress.document({"files": list(texts)})
    return 0
