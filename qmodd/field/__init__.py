"""Field replacement: which photonic module is in, what it brings with it, and what is kept for each one."""
