"""What a link can be expected to give: a model of source, fibre and receiver, and the key that its counts pay for."""
