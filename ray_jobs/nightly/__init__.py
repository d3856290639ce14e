"""The nightly scan on Kubernetes: tonight's RayJob is made from a template and followed to its end."""
