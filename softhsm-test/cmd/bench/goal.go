package main

// goal is what a figure should at least, or at most, be.
type goal struct {
	value  float64
	better direction
}

// direction says which figures are better.
type direction string

const (
	higher direction = "higher"
	lower  direction = "lower"
)

// goals holds the goals by figure. Those of signing are for the Unix socket, gRPC and verify-after-sign off. The median
// added at one caller is the daemon's own and the same goal for every device; the 99th percentile at 64 callers is for
// devices that themselves answer 64 callers within it, which RSA on SoftHSM2 and a TPM do not.
var goals = map[string]goal{
	"sign.ES256.softhsm2.c64.ratio":        {0.60, higher},
	"sign.EdDSA.softhsm2.c64.ratio":        {0.65, higher},
	"sign.RS256-2048.softhsm2.c64.ratio":   {0.80, higher},
	"sign.ES256.swtpm.c64.ratio":           {0.70, higher},
	"signbatch16.ES256.softhsm2.c64.ratio": {0.85, higher},

	"sign.ES256.softhsm2.c1.added_ms":      {0.35, lower},
	"sign.EdDSA.softhsm2.c1.added_ms":      {0.35, lower},
	"sign.RS256-2048.softhsm2.c1.added_ms": {0.35, lower},
	"sign.ES256.swtpm.c1.added_ms":         {0.35, lower},

	"sign.ES256.softhsm2.c64.p99_ms": {25, lower},
	"sign.EdDSA.softhsm2.c64.p99_ms": {25, lower},

	"daemon.rss_mib":   {50, lower},
	"daemon.start_ms":  {250, lower},
	"daemon.binary_mb": {40, lower},

	"wrapped.create_per_s": {1500, higher},
	"wrapped.first_use_ms": {2, lower},
	"wrapped.rss_mib":      {150, lower},
	"wrapped.restart_ms":   {1000, lower},
}

// met reports whether a value meets the goal.
func (g goal) met(value float64) bool {
	if g.better == higher {
		return value >= g.value
	}
	return value <= g.value
}
