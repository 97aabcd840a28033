"""What a job leaves to the trainer, settled before weights are fetched: the Auto values.

Knows models, rollouts and the memory formula; asks the model's headers, never its weights.
"""
