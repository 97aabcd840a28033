"""The language of a completion, by py3langid."""

from __future__ import annotations

from collections.abc import Callable

from finetune_contract.rewards import LanguageReward
from finetune_rewards.scores.errors import RewardInvalid
from finetune_rewards.scores.samples import Samples, text_of


def scorer(settings: LanguageReward, name: str) -> Callable[[Samples], list[float | None]]:
    """Return the probability of the language among all that the detector knows."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if settings.language not in detector.labels:
        known = ", ".join(sorted(label for label in detector.labels if len(label) == 2))
        raise RewardInvalid(
            f"reward {name}: language {settings.language!r} is not known; there are: {known}"
        )

    def score(samples: Samples) -> list[float | None]:
        return [
            float(dict(detector.rank(text_of(text)))[settings.language])
            for text in samples.completions
        ]

    return score
