package evidence_test

import (
	"fmt"
	"log"
	"os"
	"path/filepath"

	"holdfast/custody/evidence"
)

func ExampleVerify() {
	files := make(map[string][]byte)
	for _, name := range []string{"statement.json", "attestation.der", "attestation-ca.der", "binding.sig", "SHA256SUMS"} {
		var err error
		if files[name], err = os.ReadFile(filepath.Join("testdata", "piv", name)); err != nil {
			log.Fatal(err)
		}
	}
	report, err := evidence.Verify(files, &evidence.Options{Nonce: []byte("nonce")}) // and the roots of makers you believe
	if err != nil {
		log.Fatal(err)
	}
	for _, line := range report.Lines {
		fmt.Println(line)
	}
	fmt.Println("anchored:", report.Anchored)
	// Output:
	// All 5 files are as they were when the evidence was made (SHA256SUMS).
	// The attestation key of the PIV card with serial number 13370000 certified that the card generated this key (firmware 5.7.1).
	// Before each use the card asks for a PIN: once; for a touch: never.
	// The key itself signed this statement.
	// It was made for the nonce you chose.
	// anchored: false
}
