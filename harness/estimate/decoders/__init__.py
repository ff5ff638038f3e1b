"""The decoder types of transformers: their fields, how their layers alternate, and their states."""
