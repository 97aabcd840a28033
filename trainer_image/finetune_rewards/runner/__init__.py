"""The isolated runner: user code in confined workers, and both ends of its socket."""
