"""GRPO and its kin: scores -> advantages -> a loss over tokens. Pure functions of tensors."""
