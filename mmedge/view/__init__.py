"""The live page: what the model sees, hears and concludes, in a browser."""
