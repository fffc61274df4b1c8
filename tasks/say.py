"""How work under way tells a person what it does."""

from collections.abc import Callable

Say = Callable[[str], None]
"""Hears one line of progress, without its end."""

WARNING = "warning: "
"""How a line begins that is to stand out (in bold, where that can be had)."""
