"""Commands that need data: training and evaluation, with their configs, input pipeline and loop."""
