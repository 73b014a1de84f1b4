// Package evidence makes and checks the bundle of files that proves to a stranger that a key was made inside a device
// and cannot leave it. Checking needs no daemon, no device and no network.
//
// A bundle is
//
//	statement.json   what is claimed: the key, its device, when and for whom; JSON in the form of RFC 8785
//	…                what the device says, bound to the SHA-256 of statement.json; the files depend on the device
//	SHA256SUMS       the digests of all other files, as sha256sum writes them
//
// SHA256SUMS finds what was damaged; it stops nobody from making another bundle. What the device signed does, as far as
// the verifier has a reason to believe the device's signing key: that is what [Options] name and [Report] tells.
package evidence
