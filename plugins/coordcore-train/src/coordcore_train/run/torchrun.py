"""torchrun, as `coordcore run` starts it: `python -m coordcore_train.run.torchrun ARGUMENTS`.

Where a rank fails, or the run is interrupted, torch's own prints tracebacks of itself and a table of exit codes.
"""

from __future__ import annotations

import logging
import os
import sys

from coordcore_train.run import launch

_LOGGERS = ("torch.distributed.elastic", "torch.distributed.run", "torch.distributed.launcher")


def main() -> int:
    """Start and watch the ranks of this node. Exit 1 when one fails, 128 + the signal when this process gets one."""
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    from coordcore_train.run import failures

    if not os.environ.get("COORDCORE_VERBOSE"):
        # Each module of torch's has set the level of its own logger, so that a parent's does not reach it.
        for name in (*_LOGGERS, *logging.root.manager.loggerDict):
            if name.startswith(_LOGGERS):
                logging.getLogger(name).setLevel(logging.CRITICAL)
    try:
        torchrun(sys.argv[1:])
    except SignalException as error:
        return 128 + error.sigval
    except ChildFailedError as error:
        for rank, failure in error.failures.items():
            if failure.exitcode < 0 and not failures.others():  # it could not say anything itself
                print(f"coordcore: rank {rank} was ended by {failure.signal_name()}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    launch.die_with_parent()
    sys.exit(main())
