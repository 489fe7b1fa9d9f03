"""A local gRPC server that speaks TensorFlow Serving's protocol: for laptops, demos and tests.

It answers Predict, Classify, GetModelMetadata, GetModelStatus and gRPC's health check for one model, with the same
status codes as TensorFlow's model server; the protocol's other calls are UNIMPLEMENTED. Versions are loaded and
unloaded as their folders come and go.

Top down: `serving` listens, `services` are the calls, `manager` keeps the versions, `model` runs one of them, `tensors`
reads what clients send, `errors` says what they get back.
"""
