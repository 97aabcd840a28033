"""python -m finetune_operator: settings from the environment, then watch and work."""

from __future__ import annotations

from finetune_contract.start import have_a_home, heed_sigterm

if __name__ == "__main__":
    heed_sigterm()
    have_a_home()  # or kubernetes.aio can not be imported

import asyncio
import logging
import os
import sys

from finetune_operator import logs
from finetune_operator.handlers import run
from finetune_operator.settings import InvalidSetting, Settings

log = logging.getLogger(__name__)


def main() -> int:
    """Run the operator until it is told to end. Return the exit code: 2 for a wrong setting, 1 for
    what it can not go on with."""
    try:
        settings = Settings.from_environment(os.environ)
    except InvalidSetting as wrong:
        sys.stderr.write(f"{wrong}\n")
        return 2
    logs.configure(settings.log_level, settings.log_format)
    try:
        asyncio.run(run(settings))
    except Exception:  # whatever it is, its last words have the form of all the others
        log.critical("the operator ends", exc_info=True)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
