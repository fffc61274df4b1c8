"""The entry of `troop` and `python -m agent`: Ctrl-C ends it quietly while its modules are being imported, too."""

import os
import signal


def main() -> int:
    """The command line (`agent.cli.main`); returns the exit code."""
    usual = signal.getsignal(signal.SIGINT)
    if usual is signal.default_int_handler:  # else it is ignored, as in a script's background
        signal.signal(signal.SIGINT, _leave)
    from agent.cli import main as command_line

    signal.signal(signal.SIGINT, usual)
    return command_line()


def _leave(*_: object) -> None:
    os.write(2, b"troop: interrupted\n")
    os._exit(130)


if __name__ == "__main__":
    raise SystemExit(main())
