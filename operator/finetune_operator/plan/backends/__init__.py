"""Backends, one file each, and which of them makes the pods."""

from __future__ import annotations

from finetune_operator.job.backend import Backend
from finetune_operator.plan.backends.pytorchjob import PyTorchJob

BACKEND: Backend = PyTorchJob()
