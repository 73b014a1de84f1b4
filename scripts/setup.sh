#!/bin/sh
# Installs what building and testing Holdfast needs and is missing: Debian packages (apt-get), nothing else. Says what it
# installs; uses sudo when it does not run as root.
set -eu

# name of a program or file that shows the package is there | package | why
needs='
gcc|gcc|cgo
/usr/include/stdlib.h|libc6-dev|cgo
pkg-config|pkg-config|cgo: finding PC/SC
/usr/include/PCSC/winscard.h|libpcsclite-dev|PC/SC headers for PIV cards
softhsm2-util|softhsm2|software PKCS#11 token
pkcs11-tool|opensc|independent PKCS#11 and PIV client
swtpm|swtpm|software TPM
swtpm_setup|swtpm-tools|making software TPMs with certificates
tpm2_verifysignature|tpm2-tools|independent TPM client
pcscd|pcscd|PC/SC daemon
/usr/lib/pcsc/drivers/serial/libifdvpcd.so|vsmartcard-vpcd|virtual card reader
p11-kit|p11-kit|remote PKCS#11 token
/usr/lib/*/pkcs11/p11-kit-client.so|p11-kit-modules|remote PKCS#11 token
certutil|libnss3-tools|second PKCS#11 module
openssl|openssl|independent verification
curl|curl|the tour
ip|iproute2|network namespace of the virtual reader
unshare|util-linux|namespaces of the virtual reader
'

missing=
while IFS='|' read -r probe package why; do
	[ -n "$probe" ] || continue
	case $probe in
	/*) for f in $probe; do [ -e "$f" ] && continue 2; done ;;
	*) if command -v "$probe" >/dev/null 2>&1 || [ -x "/usr/sbin/$probe" ] || [ -x "/sbin/$probe" ]; then continue; fi ;;
	esac
	missing="$missing $package"
	echo "missing: $package ($why)"
done <<EOF
$needs
EOF

if ! command -v go >/dev/null 2>&1; then
	echo "Go is missing: install Go 1.26 or newer from https://go.dev/dl/ and run this again" >&2
	exit 1
fi
[ -n "$missing" ] || exit 0
if ! command -v apt-get >/dev/null 2>&1; then
	echo "This set-up knows Debian and Ubuntu only; install these in your system's way:$missing" >&2
	exit 1
fi
sudo=
if [ "$(id -u)" -ne 0 ]; then
	command -v sudo >/dev/null 2>&1 || { echo "Run as root, or install:$missing" >&2; exit 1; }
	sudo=sudo
fi
echo "installing:$missing"
apt="$sudo env DEBIAN_FRONTEND=noninteractive apt-get"
$apt -qq -o DPkg::Lock::Timeout=600 update
# shellcheck disable=SC2086  # a list of words
$apt -qq -o DPkg::Lock::Timeout=600 install -y --no-install-recommends $missing >/dev/null
