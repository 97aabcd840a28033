"""Supervised fine-tuning (SFT): the negative log-likelihood of a row's learned tokens."""
