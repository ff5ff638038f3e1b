"""llama.cpp through its C library."""
