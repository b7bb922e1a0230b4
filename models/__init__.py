"""Functional Keras models: autoencoders, regression heads, losses. Keras alone, no TensorFlow."""
