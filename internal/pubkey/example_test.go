package pubkey_test

import (
	"fmt"

	"holdfast/internal/pubkey"
)

func Example() {
	pub, err := pubkey.ParseMultikey("z6MkiTBz1ymuepAQ4HEHYSF1H8quG5GLVVQR3djdX3mDooWp")
	if err != nil {
		fmt.Println(err)
		return
	}
	jwk, _ := pubkey.JWK{Public: pub, Algorithm: "EdDSA"}.Marshal()
	pem, _ := pubkey.MarshalPEM(pub)
	ssh, _ := pubkey.MarshalSSH(pub, "ada")
	fmt.Printf("%s\n%s%s", jwk, pem, ssh)
	// Output:
	// {"alg":"EdDSA","crv":"Ed25519","kty":"OKP","x":"O2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik"}
	// -----BEGIN PUBLIC KEY-----
	// MCowBQYDK2VwAyEAO2onvM62pC1io6jQKm8Nc2UyFXcd4kOmOsBIoYtZ2ik=
	// -----END PUBLIC KEY-----
	// ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIDtqJ7zOtqQtYqOo0CpvDXNlMhV3HeJDpjrASKGLWdop ada
}
