"""How good a model is, and how often two models agree."""
