# The place of modules on the target and the interpreter that compiles them.
PYTHON3_VERSION?=3.11
PYTHON3_PKG_DIR:=/usr/lib/python$(PYTHON3_VERSION)/site-packages
HOST_PYTHON3_BIN?=python3
