"""The rows that GRPO learns from: prompts, and columns that its rewards read. Torch-free."""
