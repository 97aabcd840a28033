"""Scores of completions: the rewards of a run, asked by every rank for its share."""
