"""The base model: its tokenizer and weights, and what its code does with rows and positions.

Reads directories on this machine. Knows nothing of adapters, of data or of training.
"""
