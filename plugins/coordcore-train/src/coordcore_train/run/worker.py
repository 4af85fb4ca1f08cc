"""One rank of a run that `coordcore run` started under torchrun: `python -m coordcore_train.run.worker RUN_DIR`."""

from __future__ import annotations

import sys
from pathlib import Path

from coordcore.errors import InputError, RunError
from coordcore.manifest import load
from coordcore_train.run import failures, launch
from coordcore_train.run.folder import RunDir
from coordcore_train.run.quiet import quiet
from coordcore_train.run.session import train


def main() -> int:
    """Train the prepared run; for what the user can read: leave it to the process that started torchrun, and exit 1."""
    quiet()
    folder = RunDir(Path(sys.argv[1]))
    try:
        train(folder, load(folder.manifest))
    except (InputError, RunError) as error:
        failures.leave(error, launch.rank())
        return 1
    except RuntimeError:
        # The others lose their connection to a rank that ends; what that one had to say is worth a word, theirs is not.
        if failures.others():
            return 1
        raise
    # Nobody ends while another still talks to it.
    launch.barrier()
    launch.stop_process_group()
    return 0


if __name__ == "__main__":
    launch.die_with_parent()
    launch.end_process(main())
