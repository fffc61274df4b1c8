"""The entry of `troop` and `python -m agent`: Ctrl-C ends it quietly also while its modules are being imported."""

import os
import signal


def main() -> int:
    """The command line (`agent.cli.main`); returns the exit code."""
    usual = signal.getsignal(signal.SIGINT)
    quiet = _leave if usual is signal.default_int_handler else usual  # in a script's background it may be ignored
    signal.signal(signal.SIGINT, quiet)
    from agent.cli import main as command_line

    signal.signal(signal.SIGINT, usual)
    try:
        return command_line()
    finally:
        signal.signal(signal.SIGINT, quiet)


def _leave(*_: object) -> None:
    """Nothing has begun that would have to be put in order, or all of it is."""
    os.write(2, b"troop: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    raise SystemExit(main())
