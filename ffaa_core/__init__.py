"""FFAA batch, the core: what a verdict on a face is, how it is reached, and the table it is kept in."""
