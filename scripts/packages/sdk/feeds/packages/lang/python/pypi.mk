# Sources of PyPI lie unpacked where `make ipk` put them.
PYPI_SOURCE_NAME?=$(PYPI_NAME)
PKG_BUILD_DIR:=$(PYPI_SOURCES)/$(PYPI_SOURCE_NAME)-$(PKG_VERSION)
