package fetch_test

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"

	"holdfast"
	"holdfast/did/fetch"
)

func ExampleNew() {
	server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = w.Write([]byte("the log"))
	}))
	defer server.Close()
	roots := x509.NewCertPool()
	roots.AddCert(server.Certificate()) // which is for example.com

	client := fetch.New(&fetch.Options{
		RootCAs: roots,
		Pins:    map[string]string{"example.com:443": server.Listener.Addr().String()},
	})
	defer client.Close()
	body, err := client.Fetch(context.Background(), "https://example.com/.well-known/did.jsonl")
	fmt.Printf("%s %v\n", body, err)

	_, err = client.Fetch(context.Background(), server.URL)
	fmt.Println("the same server by its address:", errors.Is(err, holdfast.ErrDenied))
	// Output:
	// the log <nil>
	// the same server by its address: true
}
