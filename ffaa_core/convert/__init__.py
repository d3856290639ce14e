"""The published weights, made into a bundle."""
