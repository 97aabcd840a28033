"""One pod: its volumes, hosts and containers, and the status made of them."""
