"""FP16's loss scale (arXiv 1710.03740): halved by an overflow, doubled after long without one."""

from __future__ import annotations

from dataclasses import dataclass

FIRST = 65536.0
GROWTH_STEPS = 2000  # without an overflow, as torch's GradScaler


@dataclass
class LossScale:
    """What the loss is multiplied by: always 1 unless it `scales`.

    `clean_steps` are those that `value` stood without an overflow; whoever restores a run restores
    both.
    """

    scales: bool
    value: float = 1.0
    clean_steps: int = 0

    @classmethod
    def beginning(cls, *, scales: bool) -> LossScale:
        """Return the scale of a first step."""
        return cls(scales, FIRST if scales else 1.0)

    def overflowed(self) -> None:
        """Halve it: the step is done again."""
        self.value, self.clean_steps = max(1.0, self.value / 2), 0

    def stepped(self) -> None:
        """Count a step without an overflow."""
        if not self.scales:
            return
        self.clean_steps += 1
        if self.clean_steps == GROWTH_STEPS:
            self.value, self.clean_steps = 2 * self.value, 0
