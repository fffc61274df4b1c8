"""The other side of tests.bench.dialects: mini-swe-agent on its rows. Run by its own Python; takes the rows as
JSON on its standard input, prints a line of JSON for each.

Its own agent, litellm model, templates and settings as they are; each attempt works in a copy of the repository, in a
shell of this machine, with what our own server tells it. Its retries are kept to three, or a refusal would take
minutes.
"""

import json
import os
import shutil
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
os.environ["MSWEA_COST_TRACKING"] = "ignore_errors"
os.environ["MSWEA_MODEL_RETRY_STOP_AFTER_ATTEMPT"] = "3"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would wait for a download

import minisweagent
import yaml  # type: ignore[import-untyped]  # it brings no types
from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.local import LocalEnvironment
from minisweagent.models.litellm_model import LitellmModel
from minisweagent.models.litellm_textbased_model import LitellmTextbasedModel

PRINTING = threading.Lock()


def attempt(row: dict[str, Any], number: int) -> dict[str, Any]:
    """How one attempt ends."""
    name = "mini_textbased.yaml" if row["text"] else "mini.yaml"
    config = yaml.safe_load((Path(minisweagent.__file__).parent / "config" / name).read_text())
    kwargs = config["model"].pop("model_kwargs") | row["kwargs"]
    kind = LitellmTextbasedModel if row["text"] else LitellmModel
    place = Path(row["scratch"]) / f"attempt-{number}"
    shutil.copytree(row["repository"], place)
    model = kind(model_name=row["model"], model_kwargs=kwargs, **config["model"])
    templates = {key: config["agent"][key] for key in ("system_template", "instance_template")}
    environment = LocalEnvironment(cwd=str(place), **config["environment"])
    agent = DefaultAgent(model, environment, cost_limit=0.0, step_limit=14, **templates)
    try:
        end, said = agent.run(row["issue"])["exit_status"], ""
    except Exception as error:
        end, said = type(error).__name__, str(error)
    code = (place / "calc.py").read_text() if (place / "calc.py").exists() else ""
    right = any(f"for value in {over}:" in code for over in ("values", "list(values)")) and "def largest" in code
    return {"end": end, "said": said[:300], "solved": end == "Submitted" and right}


def solve(row: dict[str, Any]) -> None:
    """All attempts of a row at once, as long as it may take; prints a line."""
    began = time.perf_counter()
    ends: list[dict[str, Any]] = []
    numbers = range(row["attempts"])
    threads = [threading.Thread(target=lambda n: ends.append(attempt(row, n)), args=(n,), daemon=True) for n in numbers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(max(0.0, row["seconds"] - (time.perf_counter() - began)))
    ends += [{"end": "did not end", "said": "", "solved": False}] * (row["attempts"] - len(ends))
    line = json.dumps({"name": row["name"], "ends": ends, "seconds": time.perf_counter() - began})
    with PRINTING:  # litellm prints, too
        sys.stdout.write(f"\n{line}\n")
        sys.stdout.flush()


def main() -> None:
    rows = json.load(sys.stdin)
    with ThreadPoolExecutor(rows["at_once"]) as pool:
        list(pool.map(solve, rows["rows"]))
    sys.stdout.flush()
    os._exit(0)  # attempts that did not end are left behind


if __name__ == "__main__":
    main()
