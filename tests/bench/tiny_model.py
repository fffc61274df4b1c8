"""A model that knows nothing, served by `transformers serve`: an evaluation with it must end as clean failures, well
accounted.

    python -m venv /tmp/served && /tmp/served/bin/pip install torch "transformers[serving]"
    python -m tests.bench.tiny_model --served /tmp/served --dataset rows.jsonl --mirrors ~/mirrors

Makes a randomly initialised model of a few thousand weights and a tokenizer on the spot (nothing is downloaded), serves
it on this machine's processor, runs `troop eval` on two instances with two attempts each, and checks what the report
says against the traces. Needs docker. Exits with 1 and the reason where something does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.support.local_server import running

USD_PER_GPU_HOUR = 2.0
MAX_TOKENS = 48

# Run by the interpreter that has torch and transformers.
MAKE = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast, Qwen2Config, Qwen2ForCausalLM, set_seed

set_seed(0)
place = sys.argv[1]
plain = Tokenizer(models.BPE(unk_token=None))
plain.pre_tokenizer, plain.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
special = ["<|end|>", "<|start|>"]
trainer = trainers.BpeTrainer(
    vocab_size=600, special_tokens=special, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
)
plain.train_from_iterator([open(__import__("ast").__file__).read()], trainer)
tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="<|end|>", pad_token="<|end|>")
tokenizer.chat_template = (
    "{% for message in messages %}<|start|>{{ message['role'] }}\\n{{ message['content'] }}<|end|>\\n{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant\\n{% endif %}"
)
tokenizer.save_pretrained(place)
config = Qwen2Config(
    vocab_size=len(tokenizer), hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=2,
    num_key_value_heads=2, max_position_embeddings=65536, eos_token_id=0, bos_token_id=None, pad_token_id=0,
)
Qwen2ForCausalLM(config).save_pretrained(place)
"""


def make_model(python: Path, place: Path) -> None:
    subprocess.run([str(python), "-c", MAKE, str(place)], check=True, env=offline(place.parent))


def offline(place: Path) -> dict[str, str]:
    (place / "hub").mkdir(exist_ok=True)
    return {**os.environ, "HF_HUB_OFFLINE": "1", "HF_HUB_CACHE": str(place / "hub"), "TOKENIZERS_PARALLELISM": "false"}


@contextlib.contextmanager
def served(command: Path, model: Path) -> Iterator[str]:
    """The server's base URL, once it answers."""
    start = [str(command), "serve", str(model), "--host", "127.0.0.1", "--device", "cpu", "--port"]
    place = model.parent
    with running(lambda port: [*start, str(port)], log=place / "log", ready="/health", env=offline(place)) as url:
        yield f"{url}/v1"


def evaluate(place: Path, url: str, model: Path, known: argparse.Namespace) -> dict[str, Any]:
    """Run `troop eval` and return its report."""
    (place / "troop.toml").write_text(
        f'[models.tiny]\nbase_url = "{url}"\nname = "{model}"\nusd_per_gpu_hour = {USD_PER_GPU_HOUR}\n'
        f"tools = false\ncontext = 16384\nconcurrency = 2\nsampling = {{ max_tokens = {MAX_TOKENS} }}\n"
    )
    command = [sys.executable, "-m", "agent", "eval", "swe-bench-lite", "--dataset", str(known.dataset.resolve())]
    command += ["--mirrors", str(known.mirrors.resolve()), "--instances", known.instances, "--model", "tiny", "-n", "2"]
    command += ["--max-turns", "3", "--max-usd", "5", "--json"]
    done = subprocess.run(command, cwd=place, stdout=subprocess.PIPE, text=True, check=True)
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def check(place: Path, report: dict[str, Any], instances: list[str]) -> list[str]:
    """What does not hold; empty where all does."""
    from harness import trace

    charged = []
    for id in instances:
        events = list(trace.read(place / "runs" / "eval-swe-bench-lite" / id / "trace.jsonl"))
        charged += [e.charge for e in events if isinstance(e, (trace.Replied, trace.Charged))]
    paid = sum(charge.usd or 0.0 for charge in charged)
    busy = paid * 3600 / USD_PER_GPU_HOUR
    facts = {
        "no instance failed": report["failed"] == [],
        "every attempt is a sample": report["infrastructure"]["attempts"] == 0,
        "every attempt ended by what it did": set(report["statuses"])
        <= {"malformed", "turn-limit", "stuck", "submitted"},
        "nothing is solved": report["selected"] == 0 and report["mean_at_1"] == 0.0,
        "every call is charged": report["calls"] == len(charged) > 0,
        "every call has its tokens": all(c.usage.input and 0 < c.usage.output <= MAX_TOKENS for c in charged),
        "the price is that of the GPU's time": {c.price_source for c in charged} == {"gpu-hour"},
        "the cost adds up": abs(report["usd"] - paid) < 1e-6,
        "GPU-seconds are what was paid for": abs(report["gpu"]["seconds"] - busy) < 0.01,
        "the GPU was busy no longer than the evaluation took": busy <= report["seconds"],
        "tokens per second fit": abs(
            report["gpu"]["output_tokens_per_second"] - sum(c.usage.output for c in charged) / busy
        )
        < 0.01,
    }
    return [fact for fact, holds in facts.items() if not holds]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument(
        "--served", type=Path, required=True, metavar="VENV", help="has torch and transformers[serving]"
    )
    parser.add_argument("--dataset", type=Path, required=True, metavar="FILE", help="SWE-bench rows")
    parser.add_argument("--mirrors", type=Path, required=True, metavar="DIR", help="clones of their repositories")
    parser.add_argument("--instances", default="pallets__flask-4992,pallets__flask-5063", metavar="IDS")
    known = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="tiny-model-") as scratch:
        place = Path(scratch)
        make_model(known.served / "bin" / "python", place / "tiny")
        with served(known.served / "bin" / "transformers", place / "tiny") as url:
            report = evaluate(place, url, place / "tiny", known)
        wrong = check(place, report, known.instances.split(","))
        figures = {
            name: report[name] for name in ("statuses", "calls", "tokens", "usd", "gpu", "seconds", "candidates")
        }
        print(json.dumps(figures, indent=1))
    for fact in wrong:
        print(f"does not hold: {fact}", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    raise SystemExit(main())
