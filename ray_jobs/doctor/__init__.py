"""The doctor: whether a big run would go well, found out beforehand."""
