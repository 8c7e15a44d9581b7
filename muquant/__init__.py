"""muquant: 3-bit mu-law weight compression."""
