"""`python -m pld.stages NAME`: the entry point of dvc.yaml. A PldError or OSError prints one line and exits with 1."""

import importlib
import os
import sys

from pld.errors import PldError, fault_of_machine

STAGES = ("config", "prepare", "extract", "embed", "sweep", "resolve", "review", "evaluate", "report", "track")


def main(arguments: list[str]) -> int:
    if len(arguments) != 1 or arguments[0] not in STAGES:
        print(f"expected one of {', '.join(STAGES)}, got {' '.join(arguments) or 'none'} (pld.stages)", file=sys.stderr)
        return 2
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    try:
        importlib.import_module(f"pld.stages.{arguments[0]}").run()
    except PldError as error:
        print(f"{arguments[0]}: {error}", file=sys.stderr)
        return 1
    except OSError as error:
        print(f"{arguments[0]}: {fault_of_machine(error)}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(
            f"{arguments[0]}: stopped; the Teacher's answers are kept, and `dvc repro` starts this stage again",
            file=sys.stderr,
        )
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
