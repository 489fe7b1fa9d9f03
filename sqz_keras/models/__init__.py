"""The network in Keras: its blocks and its builders."""

from sqz_keras.backend import import_keras

import_keras()  # names a missing package before a module of this package imports it
