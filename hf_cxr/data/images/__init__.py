"""One image file to one 8-bit grey image."""
