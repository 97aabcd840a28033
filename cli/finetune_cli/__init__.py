"""The `finetune` command, also `kubectl finetune`: arguments, output, exit codes, no more."""
