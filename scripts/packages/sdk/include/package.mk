# What the Makefiles below package/ use of OpenWrt's package.mk, for building without its SDK: for
# each package, OUT/NAME/meta/ gets its fields and scripts, and OUT/NAME/root its files.
FIELDS:=SECTION CATEGORY SUBMENU TITLE DEPENDS PROVIDES CONFLICTS PKGARCH URL MAINTAINER
SCRIPTS:=description conffiles preinst postinst prerm postrm
PACKAGES:=
.DEFAULT_GOAL:=all

# $(1): package
define ReadFields
$(foreach field,$(FIELDS),$(eval $(field):=))
MAINTAINER:=$(PKG_MAINTAINER)
endef

define BuildPackage
$(eval $(call ReadFields))
$(eval $(call Package/$(1)))
$(shell mkdir -p $(OUT)/$(1)/meta $(OUT)/$(1)/root)
$(foreach field,$(FIELDS),$(file >$(OUT)/$(1)/meta/$(field),$($(field))))
$(foreach field,NAME VERSION RELEASE LICENSE LICENSE_FILES,$(file >$(OUT)/$(1)/meta/PKG_$(field),$(PKG_$(field))))
$(foreach script,$(SCRIPTS),$(if $(Package/$(1)/$(script)),$(file >$(OUT)/$(1)/meta/$(script),$(Package/$(1)/$(script)))))
PACKAGES+=$(1)

package-$(1):
	$$(call Package/$(1)/install,$(OUT)/$(1)/root)

all: package-$(1)
.PHONY: all package-$(1)
endef
