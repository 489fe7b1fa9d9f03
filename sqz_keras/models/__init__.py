"""The network in Keras: its blocks and its builders."""

from sqz_keras.backend import import_keras

import_keras()  # a missing package is named before a module of this room imports it
