"""``python -m torch.distributed.run`` without its report of failures, since the workers have already shown theirs."""

import os
import sys
from collections.abc import Sequence


def main(argv: Sequence[str]) -> int:
    """Run torchrun with its flags.

    Returns:
        Exit status of the first worker that failed, 0 if none did.
    """
    os.environ["LOGLEVEL"] = "CRITICAL"  # of torch's launcher alone; read when it is imported
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import parse_args, run

    try:
        run(parse_args(argv))
    except ChildFailedError as failed:
        _, first = failed.get_first_failure()
        return int(first.exitcode) if first.exitcode > 0 else 128 - int(first.exitcode)
    except SignalException as stopped:
        return 128 + int(stopped.sigval)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
