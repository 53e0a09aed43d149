"""Control laws as pure functions and small classes, and the scheduler that runs loops around them."""
