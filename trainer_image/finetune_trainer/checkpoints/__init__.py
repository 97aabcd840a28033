"""Checkpoints of a job: taken between two steps, written behind the training's back, found again.

Knows the step's state and the store. Without its manifest a checkpoint does not exist.
"""
