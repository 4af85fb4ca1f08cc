"""`python -m coordcore`."""

from __future__ import annotations

from coordcore.cli import main

if __name__ == "__main__":
    main()
