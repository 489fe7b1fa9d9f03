"""The two profiles by name: modules with the functions `write` and `read`."""

from sqz_keras.codec import profile_paper
from sqz_keras.codec.profile_max import coder as profile_max

PROFILES = {"paper": profile_paper, "max": profile_max}
