"""The commands of `troop`, one module each: options, wiring, exit code."""
