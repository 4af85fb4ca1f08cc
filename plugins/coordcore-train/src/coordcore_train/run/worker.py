"""One rank of a run that `coordcore run` started under torchrun: `python -m coordcore_train.run.worker RUN_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from coordcore.errors import InputError, RunError
from coordcore_train.run.quiet import quiet


def main() -> int:
    """Train the prepared run; exit 1 with a message, not a traceback, for what the user can mend."""
    quiet()
    from coordcore_train.run.session import train_prepared

    try:
        train_prepared(Path(sys.argv[1]))
    except (InputError, RunError) as error:
        print(f"coordcore: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
