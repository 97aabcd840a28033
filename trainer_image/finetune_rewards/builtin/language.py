"""The language of a completion, by py3langid."""

from __future__ import annotations

from finetune_contract.rewards import LanguageReward
from finetune_rewards.builtin import Scorer, each
from finetune_rewards.scores.errors import RewardInvalid


def scorer(settings: LanguageReward, name: str) -> Scorer:
    """Return the probability of the language among all that the detector knows."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    detector = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    if settings.language not in detector.labels:
        known = ", ".join(sorted(label for label in detector.labels if len(label) == 2))
        raise RewardInvalid(
            f"reward {name}: language {settings.language!r} is not known; there are: {known}"
        )
    return each(lambda text: float(dict(detector.rank(text))[settings.language]), settings)
