"""The network in Keras: its blocks and its builders."""
