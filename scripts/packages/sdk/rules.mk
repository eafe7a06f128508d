# What the Makefiles below package/ use of OpenWrt's rules.mk, for building without its SDK.
comma:=,
space:=$(subst ,, )
INCLUDE_DIR:=$(TOPDIR)/include
INSTALL_DIR:=install -d -m0755
INSTALL_BIN:=install -m0755
INSTALL_DATA:=install -m0644
INSTALL_CONF:=install -m0600
CP:=cp -fpR
