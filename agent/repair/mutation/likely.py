"""What is likely in small fixes: the tables of likely.toml, which the operators use."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

LIKELY: dict[str, Any] = tomllib.loads(Path(__file__).with_suffix(".toml").read_text(encoding="utf-8"))
