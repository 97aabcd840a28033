"""What a rank logs: the project's own lines. Torch-free."""

from __future__ import annotations

import logging

OWN = ("finetune_trainer", "__main__")
# At import it warns of a kernel for CPUs that nothing here uses.
NOISY = "bitsandbytes.backends.cpu.ops"


def start_logging(rank: int) -> None:
    """Log to stderr: of other libraries warnings alone, of this project rank 0's INFO too.

    HTTP clients log at INFO every URL they ask for, with the passwords and signatures in it.
    """
    logging.basicConfig(
        level=logging.WARNING,
        format=f"%(asctime)s rank {rank} %(levelname)s %(message)s",
    )
    for name in OWN:
        logging.getLogger(name).setLevel(logging.INFO if rank == 0 else logging.WARNING)
    logging.getLogger(NOISY).setLevel(logging.ERROR)
