package fetch

import (
	"net/netip"

	"holdfast"
)

// special lists the ranges of the IANA special-purpose address registries that are not globally reachable, and those that
// carry other addresses, as of 2026. netip knows some of them by name, but not all.
func special() []string {
	return []string{
		"0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12", "192.0.0.0/24",
		"192.0.2.0/24", "192.31.196.0/24", "192.52.193.0/24", "192.88.99.0/24", "192.168.0.0/16", "192.175.48.0/24",
		"198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4",
		// Teredo, ORCHID and others; documentation; 6to4, which carries IPv4.
		"2001::/23", "2001:db8::/32", "2002::/16", "2620:4f:8000::/48", "3fff::/20",
	}
}

// globalIPv6 is the only range of IPv6 that is assigned for global unicast. Everything outside is refused, with it
// loopback, link-local, unique local, mapped and translated IPv4 (64:ff9b::/96).
const globalIPv6 = "2000::/3"

// checkAddress returns ErrDenied for "ip:port" unless ip is a public address.
func checkAddress(address string) error {
	parsed, err := netip.ParseAddrPort(address)
	if err != nil || !isPublic(parsed.Addr()) {
		return holdfast.Errorf(holdfast.ErrDenied, op, "the host is not on the public internet: pin it to allow its address")
	}
	return nil
}

func isPublic(ip netip.Addr) bool {
	// An IPv4-mapped address reaches the IPv4 one.
	ip = ip.Unmap()
	if ip.Zone() != "" || ip.Is6() && !netip.MustParsePrefix(globalIPv6).Contains(ip) {
		return false
	}
	for _, text := range special() {
		if netip.MustParsePrefix(text).Contains(ip) {
			return false
		}
	}
	return ip.IsValid()
}
