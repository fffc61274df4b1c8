"""Small repositories of ordinary layouts, each as somebody might lay one out who has never heard of Troop:

    python -m tests.bench.ordinary DIR                     # bare repositories DIR/NAME.git
    python -m tests.bench.setups --repositories DIR        # which of them are set up right

They were written by somebody who had seen neither how set-up works nor what it is tested with; what was wrong with them
then is mended, so a figure on them flatters.
"""

import argparse
import json
import shutil
import tempfile
from pathlib import Path

from tests.support.repositories import git, make_repository

DATA = Path(__file__).parents[1] / "data/ordinary_layouts.json"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("into", type=Path, metavar="DIR")
    into = parser.parse_args().into.resolve()
    for name, files in json.loads(DATA.read_text(encoding="utf-8")).items():
        with tempfile.TemporaryDirectory() as scratch:
            place = make_repository(Path(scratch) / name, files)
            shutil.rmtree(into / f"{name}.git", ignore_errors=True)
            git(place, "clone", "-q", "--bare", ".", str(into / f"{name}.git"))


if __name__ == "__main__":
    main()
