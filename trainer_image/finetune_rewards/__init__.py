"""Scores for completions, from rewards that can not take a run down.

Never imports torch, and nothing of the trainer's: it also runs beside it, where user code is
confined, and on a laptop. A score is a finite number; an error never becomes one.
"""
