"""`python -m agent` is `troop`."""

from agent.cli import main

raise SystemExit(main())
