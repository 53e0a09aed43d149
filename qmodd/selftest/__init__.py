"""Built-in self-test: checks in four levels, each with a value, a unit, limits, and a reason when it fails."""
