package api

import (
	"strings"
	"testing"

	pb "holdfast/api/holdfastpb"
)

// TestNoPINInErrorsAboutRequests sends PINs as people do who overlooked that bytes are in base64.
func TestNoPINInErrorsAboutRequests(t *testing.T) {
	const pin = "7351!sesame"
	for body, want := range map[string]string{
		`{"pin":"` + pin + `"}`:           "invalid value for bytes field pin",
		`{"pin":"` + pin + `: x"}`:        "invalid value for bytes field pin",
		`{"pin":{"` + pin + `":1}}`:       "invalid value for bytes field pin",
		`"` + pin + `"`:                   "unexpected token",
		`{"pni":"` + pin + `"}`:           `unknown field "pni"`,
		`{"name":["` + pin + `"]}`:        "invalid value for string field name",
		`{"pin":"NzM1MQ==","name":` + pin: "invalid character",
	} {
		var request pb.UnlockBackendRequest
		err := newMarshaler().NewDecoder(strings.NewReader(body)).Decode(&request)
		if err == nil || strings.Contains(err.Error(), pin) || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: got %v, want %q", body, err, want)
		}
	}
	var request pb.UnlockBackendRequest
	if err := newMarshaler().NewDecoder(strings.NewReader(`{"pin":"NzM1MQ=="}`)).Decode(&request); err != nil || string(request.GetPin()) != "7351" {
		t.Errorf("a good request: %v", err)
	}
}
