"""The face that keras.applications has: one module a family of models."""
