"""The right answers: the dense oracle, a small decoder, inputs, and the bound on rounding."""
