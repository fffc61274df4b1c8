"""The other side of bench_overhead: mini-swe-agent on the same stub and image. Run by its own Python, prints JSON.

Uses mini-swe-agent's own agent, litellm model and docker environment as they are; several attempts run on threads, as
in its batch runner. A turn's overhead: (wall time of `agent.run` / turns) - model latency.
"""

import json
import os
import sys
import threading
import time

os.environ.setdefault("MSWEA_SILENT_STARTUP", "1")
os.environ.setdefault("OPENAI_API_KEY", "none")
os.environ["MSWEA_COST_TRACKING"] = "ignore_errors"
os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"  # it would wait for a download that is no part of a turn

from minisweagent.agents.default import DefaultAgent
from minisweagent.environments.docker import DockerEnvironment
from minisweagent.models.litellm_model import LitellmModel


def main(url: str, image: str, turns: int, latency: float, at_once: int) -> None:
    # Troop's image starts Troop's own first process; mini-swe-agent brings `sleep`.
    plain = ["--rm", "--entrypoint", ""]
    environments = [DockerEnvironment(image=image, cwd="/testbed", run_args=plain) for _ in range(at_once)]
    overheads = [0.0] * at_once
    ready = threading.Barrier(at_once)

    def attempt(number: int) -> None:
        # step_limit: a stop should the script and the agent not agree; it shows as an error below.
        model = LitellmModel(model_name="openai/scripted", model_kwargs={"api_base": url, "drop_params": True})
        agent = DefaultAgent(
            model,
            environments[number],
            system_template="You fix bugs.",
            instance_template="{{task}}",
            cost_limit=0.0,
            step_limit=turns + 3,
        )
        ready.wait()
        began = time.perf_counter()
        done = agent.run("mini: say true")
        assert done["exit_status"] == "Submitted", done
        overheads[number] = 1000 * ((time.perf_counter() - began) / (turns + 1) - latency)

    threads = [threading.Thread(target=attempt, args=(number,)) for number in range(at_once)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for environment in environments:
        environment.cleanup()
    assert all(overheads), "an attempt failed"
    print(json.dumps(overheads))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4]), int(sys.argv[5]))
