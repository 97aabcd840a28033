"""The memory formula: what one process needs on its device, from shapes alone."""

from __future__ import annotations

LOGITS_BYTES = 256 * 2**20  # of the fp32 logits that exist at a time
