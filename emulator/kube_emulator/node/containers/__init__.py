"""One container: its image, environment, sandbox, processes, probes and logs."""
