//go:build cgo && !nopkcs11

package hsm

const childVariable = "HOLDFAST_HSM_TEST_CHILD"

func runChild(name string) int { return 2 }
