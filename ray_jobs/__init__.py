"""The distributed jobs, on Ray."""
