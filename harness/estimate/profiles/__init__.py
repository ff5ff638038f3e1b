"""What each runtime allocates for a geometry, layer by layer."""
