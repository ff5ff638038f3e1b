"""Core ML: converted decoders and the sliced-Q pass, run without a Mac."""
