"""What is claimed about speed and memory, to be tried again: a script each, run by `make bench`."""
