"""The rules of rules_cc that Bazel's own packages load; in Bazel 4.2.3 rules_cc wraps the native ones too."""

cc_binary = native.cc_binary
cc_library = native.cc_library
cc_test = native.cc_test
cc_toolchain = native.cc_toolchain
cc_toolchain_suite = native.cc_toolchain_suite
