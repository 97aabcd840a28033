"""LoRA adapters: put on a base model, continued from a published one, merged, exported.

Knows the model it is on and the artifact it comes from or becomes, nothing of training.
"""
