package api

import (
	"strings"
	"testing"
	"unicode/utf8"

	"google.golang.org/grpc/status"

	"holdfast"
)

// TestErrorsAreShort sees to it that a long request does not become a long error.
func TestErrorsAreShort(t *testing.T) {
	err := holdfast.Errorf(holdfast.ErrNotFound, "", "there is no key called %s", strings.Repeat("é", MaxRequest/2))
	message := status.Convert(toStatus(err, "id")).Message()
	if len(message) > maxSentence+len("…") || !utf8.ValidString(message) || !strings.HasPrefix(message, "there is no key") {
		t.Errorf("told %d bytes: %.40q", len(message), message)
	}
}
